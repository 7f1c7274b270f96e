//! One replica.

use rand::{Rng, rngs::StdRng};

use super::{Duration, Fault, Identity, Machine, Profile, Settings};
use crate::election::LeaseRef;
use std::sync::Arc;

pub(super) struct Node {
    index: usize,
    pub(super) machine: Machine,
    pub(super) settings: Arc<Settings>,
    pub(super) rate: f64,
    offset: Duration,
    pub(super) up: bool,
    pub(super) cut: bool,
    /// Happenings of earlier lives are void.
    pub(super) life: u64,
    pub(super) wake: u64,
    pub(super) watch: u64,
    pub(super) watching: bool,
    pub(super) watched_until: Duration,
    pub(super) paused_until: Duration,
    /// The deadline on the own clock: what `Term::check` looks at.
    pub(super) term: Option<Duration>,
    /// Which term's work runs.
    pub(super) working: Option<u32>,
    /// Whether its work begins nothing any more.
    pub(super) ending: bool,
    /// When the last effect that was begun has taken place.
    pub(super) busy_until: Duration,
    fault: Option<Fault>,
}

impl Node {
    pub(super) fn new(index: usize, profile: Profile, random: &mut StdRng) -> Self {
        let rate = match (index, profile.extreme) {
            (0, _) => profile.slowest,
            (_, true) => 1.0,
            (_, false) => random.random_range(profile.slowest..=1.0),
        };
        let mut node = Self {
            index,
            machine: Machine::new(Arc::new(settings(index)), 0),
            settings: Arc::new(settings(index)),
            rate,
            offset: random.random_range(Duration::ZERO..Duration::from_secs(1000)),
            up: true,
            cut: false,
            life: 0,
            wake: 0,
            watch: 0,
            watching: false,
            watched_until: Duration::ZERO,
            paused_until: Duration::ZERO,
            term: None,
            working: None,
            ending: false,
            busy_until: Duration::ZERO,
            fault: profile.fault,
        };
        node.begin(index, random);
        node
    }

    /// By its own clock.
    pub(super) fn clock(&self, now: Duration) -> Duration {
        self.offset + now.mul_f64(self.rate)
    }

    /// Whether its term stands, by its own clock.
    pub(super) fn active(&self, now: Duration) -> bool {
        self.up && self.term.is_some_and(|deadline| self.clock(now) < deadline)
    }

    pub(super) fn crash(&mut self) {
        self.up = false;
        self.term = None;
        self.working = None;
        self.watching = false;
        self.life += 1;
    }

    /// Comes back, in the same pod or in another.
    pub(super) fn restart(&mut self, random: &mut StdRng) {
        let pod = if random.random_bool(0.5) { self.index } else { self.index + 10 };
        self.up = true;
        self.begin(pod, random);
    }

    fn begin(&mut self, pod: usize, random: &mut StdRng) {
        self.settings = Arc::new(settings(pod));
        self.machine = Machine::new(self.settings.clone(), random.random());
        self.machine.fault = self.fault;
    }
}

fn settings(pod: usize) -> Settings {
    Settings::new(
        LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
        Identity::new(format!("n{pod}")).with_uid("u"),
    )
}
