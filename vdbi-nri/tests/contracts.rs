//! The contract suite of plugins from outside: over plugins that keep the contract, and over wrong ones, at least one for each clause,
//! which break that clause and no other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};
use vdbi_core::{secret::Secret, testing::Broken};
use vdbi_nri::{
    stub::{Adjustment, Container, ContainerInjector, Creation, Pod, Refused, Runtime},
    testing::container_injector::{self as suite, Fixture},
};

#[path = "../../vdbi-core/tests/contracts/wrong.rs"]
mod wrong;

// ANCHOR: fixture
/// A plugin, asked about a container that it adjusts.
struct Adjusts<I>(Arc<I>);

fn pod(namespace: &str) -> Pod {
    let mut pod = Pod::default();
    (pod.id, pod.name, pod.namespace) = ("sandbox".into(), "web-1".into(), namespace.into());
    pod
}

impl<I: ContainerInjector> Fixture for Adjusts<I> {
    type Injector = Arc<I>;

    fn injector(&self) -> Arc<I> {
        self.0.clone()
    }

    fn pod(&self) -> Pod {
        pod("shop")
    }

    fn container(&self) -> Container {
        let env = vec!["PATH=/bin".into(), "GREETING=to be set".into()];
        let mut container = Container::default();
        (container.id, container.pod_id, container.name) = ("c1".into(), "sandbox".into(), "web".into());
        container.env = env;
        container
    }
}

#[tokio::test(start_paused = true)]
async fn my_plugin_keeps_the_contract() {
    suite::run(&Adjusts(Arc::new(Greeter::new(None)))).await;
}
// ANCHOR_END: fixture

/// Asked about a container that it refuses.
struct Refuses(Arc<Greeter>);

impl Fixture for Refuses {
    type Injector = Arc<Greeter>;

    fn injector(&self) -> Arc<Greeter> {
        self.0.clone()
    }

    fn pod(&self) -> Pod {
        pod("forbidden")
    }

    fn container(&self) -> Container {
        Container::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_refuses_keeps_the_contract() {
    suite::run(&Refuses(Arc::new(Greeter::new(None)))).await;
}

/// What a wrong plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    SynchronizesAnEmptyNodeOnly,
    DecidesTooLate,
    Panics,
    SetsTooMuch,
    RefusesWithoutAWord,
    RefusesAtLength,
    SetsOneOfTwo,
    DecidesOneAtATime,
    RemembersADroppedCreation,
    BlocksItsThread,
    WantsToKnowPods,
}

const FLAWS: [(Flaw, &str); 11] = [
    (Flaw::SynchronizesAnEmptyNodeOnly, "it_synchronizes_in_time_on_each_connection"),
    (Flaw::DecidesTooLate, "it_decides_by_its_deadline"),
    (Flaw::Panics, "it_decides_without_a_panic"),
    (Flaw::SetsTooMuch, "an_adjustment_fits_into_an_answer"),
    (Flaw::RefusesWithoutAWord, "a_refusal_says_why"),
    (Flaw::RefusesAtLength, "a_refusal_says_why"),
    (Flaw::SetsOneOfTwo, "a_variable_that_is_there_twice_is_not_set"),
    (Flaw::DecidesOneAtATime, "overlapping_creations_are_decided_alike"),
    (Flaw::RemembersADroppedCreation, "a_dropped_creation_can_be_asked_for_again"),
    (Flaw::BlocksItsThread, "no_future_blocks_its_thread"),
    (Flaw::WantsToKnowPods, "removals_are_taken_note_of"),
];

/// Sets a variable in every container, but for pods of one namespace, which it refuses.
struct Greeter {
    flaw: Option<Flaw>,
    under_way: AtomicUsize,
    /// When creations began that have not ended, by a number.
    begun: Mutex<BTreeMap<usize, Instant>>,
    calls: AtomicUsize,
}

/// Counts a creation while it is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Greeter {
    fn new(flaw: Option<Flaw>) -> Self {
        let (under_way, begun, calls) = (AtomicUsize::new(0), Mutex::default(), AtomicUsize::new(0));
        Self { flaw, under_way, begun, calls }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl ContainerInjector for Greeter {
    async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
        let is_alone = self.under_way.fetch_add(1, Ordering::Relaxed) == 0;
        let _under_way = UnderWay(&self.under_way);
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let earlier = self.begun.lock().unwrap().values().any(|begun| *begun < Instant::now());
        self.begun.lock().unwrap().insert(call, Instant::now());
        match self.flaw {
            Some(Flaw::DecidesTooLate) => sleep_until(creation.deadline + Duration::from_secs(1)).await,
            Some(Flaw::Panics) => panic!("as asked"),
            Some(Flaw::RefusesWithoutAWord) => return Err(Refused::new("")),
            Some(Flaw::RefusesAtLength) => return Err(Refused::new("no ".repeat(1000))),
            Some(Flaw::DecidesOneAtATime) if !is_alone => return Err(Refused::new("one after the other")),
            Some(Flaw::RemembersADroppedCreation) if earlier => {
                return Err(Refused::new("another creation is under way"));
            }
            Some(Flaw::BlocksItsThread) => std::thread::sleep(Duration::from_millis(150)),
            _ => {}
        }
        // The time that it takes to look something up.
        sleep(Duration::from_millis(5)).await;
        self.begun.lock().unwrap().remove(&call);
        if creation.pod.namespace == "forbidden" {
            return Err(Refused::new("no container of this namespace is greeted"));
        }
        let greetings = creation.container.env.iter().filter(|line| line.starts_with("GREETING=")).count();
        if greetings > 1 && !self.is(Flaw::SetsOneOfTwo) {
            return Err(Refused::new("the container has GREETING twice: remove one of them"));
        }
        let size = if self.is(Flaw::SetsTooMuch) { 1 << 20 } else { 1 };
        let mut adjustment = Adjustment::default();
        adjustment.set_env("GREETING", Secret::new("hello".repeat(size)))?;
        Ok(adjustment)
    }

    async fn synchronize(&self, _: Vec<Pod>, containers: Vec<Container>, _: &Runtime) {
        if self.is(Flaw::SynchronizesAnEmptyNodeOnly) && !containers.is_empty() {
            pending::<()>().await;
        }
    }

    async fn pod_removed(&self, pod: &Pod) {
        assert!(!self.is(Flaw::WantsToKnowPods) || !pod.id.is_empty(), "an unknown pod");
    }
}

#[tokio::test(start_paused = true)]
async fn each_wrong_plugin_breaks_the_clause_meant() {
    for (flaw, clause) in FLAWS {
        let fixture = || Adjusts(Arc::new(Greeter::new(Some(flaw))));
        let run = Broken::by("run", suite::run(&fixture())).await;
        let broken = suite::broken(&fixture()).await;
        wrong::expect_one_broken(flaw, clause, &broken, run);
    }
}

#[test]
fn every_clause_of_the_suite_has_a_wrong_plugin() {
    wrong::expect_complete("vdbi_nri::testing::container_injector", suite::CLAUSES, &FLAWS);
}
