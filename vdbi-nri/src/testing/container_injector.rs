//! The contract of [`ContainerInjector`], over the pods and containers of a [`Fixture`].

use std::{
    future::poll_fn,
    io,
    panic::AssertUnwindSafe,
    pin::pin,
    time::{Duration, Instant as WallClock},
};

use futures::{FutureExt, future::join_all};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use vdbi_core::{metrics::Registry, suite, testing::Clause};

use super::{CallError, Created, PluginConnection};
use crate::{
    stub::{Container, ContainerInjector, Creation, Pod, Runtime, Settings, Stub},
    wire::ttrpc::Code,
};

/// How many creations are asked about at once.
const OVERLAPPING: usize = 8;

/// How long a future may keep its thread: the tasks beside it wait.
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// What a plugin has of the two seconds that containerd waits.
const PATIENCE: Duration = Duration::from_millis(1600);

/// How many bytes of a refusal are shown to the pod's author.
const SHOWN: usize = 1000;

/// The version that the suite's containerd says it is.
const CONTAINERD: &str = "2.2.9";

/// A plugin, with a pod and a container of yours. One fixture shows one thing that the plugin can do: to adjust the container, to
/// refuse it, to leave it alone.
pub trait Fixture {
    /// The plugin; an [`Arc`](std::sync::Arc) of one is one too.
    type Injector: ContainerInjector;

    /// The plugin: the same one each time, or one that shares everything with it.
    fn injector(&self) -> Self::Injector;

    /// The pod.
    fn pod(&self) -> Pod;

    /// The container of that pod, as containerd would create it.
    fn container(&self) -> Container;
}

suite! {
    /// Runs every clause, over connections of the suite's own: no containerd is needed.
    pub async fn run(fixture: &impl Fixture) {
        it_synchronizes_in_time_on_each_connection,
        it_decides_by_its_deadline,
        it_decides_without_a_panic,
        an_adjustment_fits_into_an_answer,
        a_refusal_says_why,
        a_variable_that_is_there_twice_is_not_set,
        overlapping_creations_are_decided_alike,
        a_dropped_creation_can_be_asked_for_again,
        no_future_blocks_its_thread,
        removals_are_taken_note_of,
    }
}

/// It synchronizes before containerd stops waiting, on a node without pods as with the container that it has decided about, and on each
/// connection again.
pub async fn it_synchronizes_in_time_on_each_connection(fixture: &impl Fixture) {
    let clause = clause("it_synchronizes_in_time_on_each_connection");
    connected(clause, fixture, async |connections| {
        let connection = configured(clause, connections).await;
        let told = connection.synchronize(&[], &[], false).await;
        clause.holds(told == Ok(false), format_args!("on a node without pods it answers {told:?}"));
        let (pod, container) = (fixture.pod(), fixture.container());
        let created = connection.create(&pod, &container).await;
        drop(connection);

        let connection = configured(clause, connections).await;
        let container = created.map_or_else(|_| container.clone(), |created| created.apply(&container));
        let told = connection.synchronize(&[pod], &[container], false).await;
        clause.holds(told == Ok(false), format_args!("told of its container it answers {told:?}"));
    })
    .await;
}

/// It decides about a container by [`Creation::deadline`].
pub async fn it_decides_by_its_deadline(fixture: &impl Fixture) {
    let clause = clause("it_decides_by_its_deadline");
    is_not(clause, fixture, Code::DeadlineExceeded).await;
}

/// It decides about a container without a panic, of which the pod's author would not learn the reason.
pub async fn it_decides_without_a_panic(fixture: &impl Fixture) {
    let clause = clause("it_decides_without_a_panic");
    is_not(clause, fixture, Code::Internal).await;
}

/// An adjustment fits into one answer: 4 MiB.
pub async fn an_adjustment_fits_into_an_answer(fixture: &impl Fixture) {
    let clause = clause("an_adjustment_fits_into_an_answer");
    is_not(clause, fixture, Code::ResourceExhausted).await;
}

/// A refusal has a message, and one that is not cut: of up to 1000 bytes.
pub async fn a_refusal_says_why(fixture: &impl Fixture) {
    let clause = clause("a_refusal_says_why");
    synchronized(clause, fixture, async |connection| {
        if let Some(Err(why)) = decide(connection, fixture).await {
            clause.holds(!why.trim().is_empty(), "it has no message");
            clause.holds(why.len() <= SHOWN, format_args!("it has more than {SHOWN} bytes: {why}"));
        }
    })
    .await;
}

/// A variable that the container has twice is not set: NRI would replace the first, and the last one counts. Whoever has to set it
/// refuses.
pub async fn a_variable_that_is_there_twice_is_not_set(fixture: &impl Fixture) {
    let clause = clause("a_variable_that_is_there_twice_is_not_set");
    let mut container = fixture.container();
    container.env.extend(container.env.clone());
    synchronized(clause, fixture, async |connection| {
        let Ok(created) = connection.create(&fixture.pod(), &container).await else { return };
        for (name, _) in created.env {
            let is_it = |line: &&String| line.split_once('=').is_some_and(|(other, _)| other == name);
            let count = container.env.iter().filter(is_it).count();
            clause.holds(count < 2, format_args!("the container has {name} {count} times, and it is set"));
        }
    })
    .await;
}

/// It decides alike about one container when it is asked eight times at once.
pub async fn overlapping_creations_are_decided_alike(fixture: &impl Fixture) {
    let clause = clause("overlapping_creations_are_decided_alike");
    synchronized(clause, fixture, async |connection| {
        let alone = decide(connection, fixture).await;
        let together = join_all((0..OVERLAPPING).map(|_| decide(connection, fixture))).await;
        for other in together {
            alike(clause, "asked several times at once", &alone, &other);
        }
    })
    .await;
}

/// A creation whose future was dropped before it was decided can be asked for again, and is decided as before.
pub async fn a_dropped_creation_can_be_asked_for_again(fixture: &impl Fixture) {
    let clause = clause("a_dropped_creation_can_be_asked_for_again");
    synchronized(clause, fixture, async |connection| {
        let before = decide(connection, fixture).await;
        // Too soon for most to have decided.
        let patience = std::mem::replace(&mut connection.timeout, Duration::from_millis(1));
        let _ = connection.create(&fixture.pod(), &fixture.container()).await;
        connection.timeout = patience;
        // The stub gives up at 85 % of the time.
        sleep(Duration::from_millis(1)).await;
        let after = decide(connection, fixture).await;
        alike(clause, "asked again after a creation that was given up", &before, &after);
    })
    .await;
}

/// No future blocks its thread: none runs for more than 100 ms without an await, of three attempts.
pub async fn no_future_blocks_its_thread(fixture: &impl Fixture) {
    let clause = clause("no_future_blocks_its_thread");
    let (injector, runtime) = (fixture.injector(), Runtime::containerd(CONTAINERD));
    let (pod, container) = (fixture.pod(), fixture.container());
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let deadline = Instant::now() + PATIENCE;
        let creation = Creation { pod: &pod, container: &container, runtime: &runtime, deadline };
        let longest = [
            longest_poll(injector.synchronize(Vec::new(), Vec::new(), &runtime)).await,
            longest_poll(injector.create(creation)).await,
            longest_poll(injector.container_removed(&pod, &container)).await,
            longest_poll(injector.pod_removed(&pod)).await,
        ];
        // A busy machine may take the thread away once; a future that blocks it does so each time.
        shortest = longest.into_iter().max().map_or(shortest, |longest| shortest.min(longest));
    }
    let holds = shortest <= LONGEST_POLL;
    clause.holds(holds, format_args!("a future kept its thread for {shortest:?} without an await"));
}

/// It takes note of the removal of a pod and of a container, more than once, also of those that it has never seen and of a container
/// whose creation failed.
pub async fn removals_are_taken_note_of(fixture: &impl Fixture) {
    let clause = clause("removals_are_taken_note_of");
    synchronized(clause, fixture, async |connection| {
        let stranger = (Pod::default(), Container::default());
        let _ = decide(connection, fixture).await;
        let known = (fixture.pod(), fixture.container());
        for (whose, (pod, container)) in [("it has never seen", stranger), ("it was asked about", known)] {
            for _ in 0..2 {
                let told = connection.remove_container(&pod, &container).await;
                clause.ok(&format!("the removal of a container that {whose}"), told);
                let told = connection.remove_pod(&pod).await;
                clause.ok(&format!("the removal of a pod that {whose}"), told);
            }
        }
    })
    .await;
}

fn clause(name: &'static str) -> Clause {
    Clause::new("ContainerInjector", name)
}

/// A decision: an adjustment or a refusal. `None` is neither, which is for other clauses.
type Decision = Option<Result<Created, String>>;

async fn decide(connection: &PluginConnection, fixture: &impl Fixture) -> Decision {
    match connection.create(&fixture.pod(), &fixture.container()).await {
        Ok(created) => Some(Ok(created)),
        Err(CallError { code, message }) if code == Code::FailedPrecondition as i32 => Some(Err(message)),
        Err(_) => None,
    }
}

fn alike(clause: Clause, when: &str, before: &Decision, after: &Decision) {
    let told = |decision: &Decision| match decision {
        Some(Ok(_)) => "creates it".to_owned(),
        Some(Err(why)) => format!("refuses it: {why}"),
        None => "does not decide".to_owned(),
    };
    let is_alike = match (before, after) {
        (Some(before), Some(after)) => before.is_ok() == after.is_ok(),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let (before, after) = (told(before), told(after));
    clause.holds(is_alike, format_args!("alone it {before}; {when} it {after}"));
}

/// No creation ends like this.
async fn is_not(clause: Clause, fixture: &impl Fixture, code: Code) {
    synchronized(clause, fixture, async |connection| {
        match connection.create(&fixture.pod(), &fixture.container()).await {
            Err(error) if error.code == code as i32 => clause.broken(error.message),
            _ => {}
        }
    })
    .await;
}

/// On a connection on which the plugin knows that the node is empty. Where it does not synchronize, there is nothing to look at.
async fn synchronized(
    clause: Clause,
    fixture: &impl Fixture,
    check: impl AsyncFnOnce(&mut PluginConnection),
) {
    connected(clause, fixture, async |connections| {
        let mut connection = configured(clause, connections).await;
        if connection.synchronize(&[], &[], false).await == Ok(false) {
            check(&mut connection).await;
        }
    })
    .await;
}

type Connections = mpsc::UnboundedReceiver<PluginConnection>;

/// While a stub runs with the plugin, which makes a new connection whenever the last one has ended.
async fn connected(clause: Clause, fixture: &impl Fixture, check: impl AsyncFnOnce(&mut Connections)) {
    let settings = clause.ok("the suite's settings", Settings::new("contract", "00"));
    let stub = Stub::new(settings, fixture.injector(), &Registry::disabled());
    let (sender, mut connections) = mpsc::unbounded_channel();
    let connect = || {
        let (near, far) = duplex(1 << 16);
        // Where nobody waits for it, the suite is at its end.
        let _ = sender.send(PluginConnection::over(far));
        async { Ok::<DuplexStream, io::Error>(near) }
    };
    tokio::select! {
        () = stub.run_over(connect, std::future::pending()) => {}
        () = check(&mut connections) => {}
    }
}

async fn configured(clause: Clause, connections: &mut Connections) -> PluginConnection {
    let Some(mut connection) = connections.recv().await else { clause.broken("the stub has ended") };
    clause.holds(connection.registered().await.is_some(), "the stub does not register");
    clause.ok("the configuration of the stub", connection.configure(CONTAINERD).await);
    connection
}

/// The longest time between two awaits of a future. How it ends is for other clauses.
async fn longest_poll(future: impl Future) -> Duration {
    let mut future = pin!(timeout(PATIENCE, AssertUnwindSafe(future).catch_unwind()));
    let mut longest = Duration::ZERO;
    poll_fn(|context| {
        let begun = WallClock::now();
        let polled = future.as_mut().poll(context);
        longest = longest.max(begun.elapsed());
        polled.map(|_| longest)
    })
    .await
}
