use super::*;

/// The Go product ended with the SIGKILL, 30 seconds after the SIGTERM, and each node was without its plugin for as long.
#[tokio::test(start_paused = true)]
async fn a_plugin_that_is_synchronized_ends_at_once() {
    let mut world = World::start();
    let mut connection = world.synchronized().await;
    let start = Instant::now();
    world.shutdown.cancel();
    world.ended().await;
    connection.closed().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(world.metrics.gauge("vdbi_nri_connected"), 0.0);
    assert_eq!(world.status.borrow().ready(), Err("the plugin is shutting down".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_plugin_ends_at_once_whatever_it_waits_for() {
    // A registration.
    let mut world = World::start();
    let (_, connection) = world.connected().await;
    world.shutdown.cancel();
    world.ended().await;
    drop(connection);
    // The next attempt.
    let mut world = World::with_errors([io::ErrorKind::NotFound; 1000]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let start = Instant::now();
    world.shutdown.cancel();
    world.ended().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(world.errors.lock().unwrap().len() > 900);
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_are_finished_first_and_new_ones_refused() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let (pod, waiting, new) = (pod("web"), container("wait"), container("app"));
    let first = connection.create(&pod, &waiting);
    let rest = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.shutdown.cancel();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let error = connection.create(&pod, &new).await.unwrap_err();
        assert_eq!(error.message, "the plugin is shutting down");
        world.plugin.proceed.add_permits(1);
    };
    let (created, ()) = tokio::join!(first, rest);
    assert_eq!(created.unwrap().env.len(), 1);
    world.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_holds_a_shutdown_up_no_longer_than_its_own_time() {
    let mut world = World::start();
    let connection = world.synchronized().await;
    let (pod, never) = (pod("web"), container("never"));
    let rest = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.shutdown.cancel();
    };
    let (created, ()) = tokio::join!(connection.create(&pod, &never), rest);
    assert_eq!(created.unwrap_err().message, "the plugin had no answer in time");
    let start = Instant::now();
    world.ended().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}
