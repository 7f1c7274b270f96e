use super::*;
use crate::{
    testing::Registration,
    wire::{
        link::{Link, Role},
        ttrpc::{Answered, Call, Code, Failure, Service},
    },
};

const ALL: i32 = 0x8 | 0x4 | 0x400;

#[tokio::test(start_paused = true)]
async fn a_plugin_registers_and_is_ready_once_it_has_been_synchronized() {
    let mut world = World::start();
    let (_, mut connection) = world.connected().await;
    let registration = connection.registered().await.unwrap();
    assert_eq!(registration, Registration { name: "example".to_owned(), index: "10".to_owned() });
    connection.configure("v2.2.9").await.unwrap();
    assert_eq!(*world.status.borrow(), Status::Connected);
    world.status.borrow().ready().unwrap_err();
    assert_eq!(world.metrics.gauge("vdbi_nri_connected"), 0.0);

    assert!(!connection.synchronize(&[pod("web")], &[container("app")], false).await.unwrap());
    let runtime = Runtime { name: "containerd".to_owned(), version: "v2.2.9".to_owned() };
    world.until(|status| *status == Status::Synchronized { runtime: runtime.clone() }).await;
    assert_eq!(world.metrics.gauge("vdbi_nri_connected"), 1.0);
    let synchronized = world.plugin.synchronized.lock().unwrap().clone();
    assert_eq!(synchronized, [(vec![pod("web")], vec![container("app")], runtime)]);
}

/// Whatever a runtime does not know, it refuses the plugin for.
#[tokio::test(start_paused = true)]
async fn a_plugin_subscribes_to_what_the_runtime_knows() {
    let mut world = World::start();
    let (_, connection) = world.connected().await;
    for (version, events) in [
        ("1.7.24~ds1", ALL),
        ("2.1.9+unknown", ALL),
        ("unknown", ALL),
        ("2.2.0", ALL | 0x2000),
        ("v2.4.2", ALL | 0x2000),
    ] {
        assert_eq!(connection.configure(version).await.unwrap(), events, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_may_configure_and_synchronize_before_it_answers_the_registration() {
    let mut world = World::start();
    let (_, mut connection) = world.connected().await;
    connection.answer_registrations(false);
    connection.start("1.7.24").await.unwrap();
    world.until(|status| status.ready().is_ok()).await;
    connection.answer_registrations(true);
    connection.create(&pod("web"), &container("app")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_synchronization_in_parts_reaches_the_injector_once() {
    let mut world = World::start();
    let (_, mut connection) = world.connected().await;
    connection.registered().await.unwrap();
    connection.configure("2.1.9").await.unwrap();
    let parts = [("a", true), ("b", true), ("c", true), ("d", false)];
    for (name, more) in parts {
        assert!(world.plugin.synchronized.lock().unwrap().is_empty());
        world.status.borrow().ready().unwrap_err();
        assert_eq!(connection.synchronize(&[pod(name)], &[container(name)], more).await, Ok(more));
    }
    world.until(|status| status.ready().is_ok()).await;
    let synchronized = world.plugin.synchronized.lock().unwrap();
    let [(pods, containers, _)] = synchronized.as_slice() else { panic!("{synchronized:?}") };
    assert_eq!(*pods, parts.map(|(name, _)| pod(name)));
    assert_eq!(*containers, parts.map(|(name, _)| container(name)));
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_broken_synchronization_are_forgotten() {
    let mut world = World::start();
    let (_, connection) = world.connected().await;
    connection.synchronize(&[pod("old")], &[], true).await.unwrap();
    drop(connection);
    world.synchronized().await;
    assert_eq!(world.plugin.synchronized.lock().unwrap()[0].0, []);
}

/// containerd 1.7 keeps such a connection and never asks the plugin anything.
#[tokio::test(start_paused = true)]
async fn a_plugin_that_failed_to_synchronize_connects_again() {
    for (failing, reason) in [
        (Synchronization::Panics, "Synchronize failed: the plugin failed unexpectedly"),
        (Synchronization::NeverEnds, "Synchronize failed: the plugin had no answer in time"),
    ] {
        let mut world = World::start();
        world.plugin.synchronizations.lock().unwrap().push_back(failing);
        let (_, mut connection) = world.connected().await;
        connection.start("1.7.24").await.unwrap_err();
        connection.closed().await;
        assert_eq!(*world.status.borrow(), Status::Disconnected { reason: reason.to_owned() });
        world.synchronized().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_was_not_synchronized_in_time_connects_again() {
    let mut world = World::start();
    let (first, mut connection) = world.connected().await;
    connection.registered().await.unwrap();
    connection.closed().await;
    let reason = "containerd did not synchronize the plugin within 7s".to_owned();
    assert_eq!(*world.status.borrow(), Status::Disconnected { reason });
    // containerd's registration timeout of 5 s and request timeout of 2 s, by default.
    let (second, mut connection) = world.connected().await;
    let waited = (second - first).as_secs_f64();
    assert!((7.0..7.2).contains(&waited), "{waited}");
    connection.start("1.7.24").await.unwrap();
}

/// Each newcomer queues up behind the others, and behind the creations under way.
#[tokio::test(start_paused = true)]
async fn a_busy_runtime_is_given_more_and_more_time() {
    let mut world = World::start();
    let (mut last, mut kept) = (Instant::now(), Vec::new());
    for seconds in [0, 7, 14, 28, 56, 112, 112] {
        let (at, connection) = world.connected().await;
        let waited = (at - last).as_secs();
        assert!((seconds..=seconds + 2).contains(&waited), "{waited} s, not {seconds} s");
        last = at;
        kept.push(connection);
    }
    kept.last_mut().unwrap().start("1.7.24").await.unwrap();
    world.until(|status| status.ready().is_ok()).await;
    kept.clear();
    let (first, connection) = world.connected().await;
    let (second, _) = world.connected().await;
    drop(connection);
    assert_eq!((second - first).as_secs(), 7, "it starts over after a success");
}

#[tokio::test(start_paused = true)]
async fn every_step_of_a_registration_has_its_time() {
    let mut world = World::start();
    let (first, mut connection) = world.connected().await;
    connection.registered().await.unwrap();
    let wait = Duration::from_secs(6);
    tokio::time::sleep(wait).await;
    connection.configure("2.1.9").await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(wait).await;
        connection.synchronize(&[], &[], true).await.unwrap();
    }
    tokio::time::sleep(wait).await;
    connection.synchronize(&[], &[], false).await.unwrap();
    world.until(|status| status.ready().is_ok()).await;
    assert!(first.elapsed() > Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn once_synchronized_a_plugin_waits_for_requests_as_long_as_it_takes() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    connection.create(&pod("web"), &container("app")).await.unwrap();
    assert!(world.connections.is_empty());
}

/// A runtime that refuses every registration and, as containerd does, keeps the connection.
#[derive(Debug)]
struct Refusing;

impl Service for Refusing {
    async fn call(&self, _: Call) -> Result<Vec<u8>, Failure> {
        Err(Failure::new(Code::InvalidArgument, "invalid plugin index \"1\""))
    }

    fn answered(&self, _: Answered<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_is_refused_disconnects_and_says_why() {
    let (near, far) = duplex(1 << 16);
    let mut runtime = Link::new(far, Role::Runtime, Arc::new(Refusing), Duration::from_secs(1));
    let settings = Settings::new("example", "10").unwrap();
    let stub = Stub::new(settings, Arc::new(Greeter), &Registry::disabled());
    let mut status = stub.status();
    let mut near = Some(near);
    let connect = || {
        let io = near.take().ok_or_else(|| io::ErrorKind::NotFound.into());
        async { io }
    };
    let turn = async { while runtime.turn().await.is_ok() {} };
    let refused = async {
        let reason = "the plugin was not registered: invalid plugin index \"1\"".to_owned();
        status.wait_for(|status| *status == Status::Disconnected { reason: reason.clone() }).await.unwrap();
    };
    let ((), ()) = tokio::join!(stub.run_over(connect, refused), turn);
}

#[derive(Debug)]
struct Greeter;

impl ContainerInjector for Greeter {
    async fn create(&self, _: Creation<'_>) -> Result<Adjustment, Refused> {
        Ok(Adjustment::default())
    }
}
