//! Random histories: replicas whose clocks run at different rates, over a network that delays, loses and cuts, with crashes,
//! pauses, failing work and a deletion. True time is known here, and to nobody else.

use std::{cmp::Reverse, collections::BinaryHeap};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::election::Identity;

const SECOND: Duration = Duration::from_secs(1);

/// Faults end here.
const HEALED: Duration = Duration::from_secs(150);

/// A lease duration on the slowest clock, the longest backoff, and some requests.
const RECOVERY: Duration = Duration::from_secs(55);

#[derive(Debug, PartialEq, Eq)]
enum Violation {
    TwoTerms,
    FenceWentBack,
    NoLeader,
}

#[derive(Clone, Debug)]
enum Happening {
    Wake(u64),
    /// A request arrives: none is a GET.
    Arrival(u64, Option<(bool, Value)>),
    /// What the machine is told, if the link is up.
    Answer(Event),
    /// What it is told in any case.
    Local(Event),
    Watched(u64, Event),
    Watch(u64, String),
    Cut(bool),
    Crash,
    Restart,
    Pause(Duration),
    Delete,
}

struct Node {
    machine: Machine,
    settings: Arc<Settings>,
    rate: f64,
    offset: Duration,
    up: bool,
    cut: bool,
    /// Happenings of earlier lives are void.
    life: u64,
    wake: u64,
    watch: u64,
    watching: bool,
    watched_until: Duration,
    paused_until: Duration,
    /// The deadline on the own clock: what `Term::check` looks at.
    term: Option<Duration>,
    working: bool,
}

impl Node {
    fn clock(&self, now: Duration) -> Duration {
        self.offset + now.mul_f64(self.rate)
    }

    fn active(&self, now: Duration) -> bool {
        self.up && self.term.is_some_and(|deadline| self.clock(now) < deadline)
    }
}

struct World {
    random: StdRng,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: Vec<Option<(usize, u64, Happening)>>,
    nodes: Vec<Node>,
    history: Vec<(bool, Value)>,
    lease: Option<Value>,
    last_fence: usize,
    terms: u32,
    violation: Option<Violation>,
}

impl World {
    fn new(seed: u64, slowest: f64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(2..=4);
        let nodes = (0..count)
            .map(|index| {
                let settings = Settings::new("renewer", "vdbi", Identity::new(format!("n{index}"), "u"));
                let settings = Arc::new(settings);
                let rate = if index == 0 { slowest } else { random.random_range(slowest..=1.0) };
                Node {
                    machine: Machine::new(settings.clone(), random.random()),
                    settings,
                    rate,
                    offset: random.random_range(Duration::ZERO..1000 * SECOND),
                    up: true,
                    cut: false,
                    life: 0,
                    wake: 0,
                    watch: 0,
                    watching: false,
                    watched_until: Duration::ZERO,
                    paused_until: Duration::ZERO,
                    term: None,
                    working: false,
                }
            })
            .collect();
        let mut world = Self {
            random,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            nodes,
            history: Vec::new(),
            lease: None,
            last_fence: 0,
            terms: 0,
            violation: None,
        };
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        // A replica that starts after a deletion has not seen the lease and may create it at once; that is known.
        let deletes = self.random.random_bool(0.2);
        if deletes {
            let at = self.random.random_range(20 * SECOND..100 * SECOND);
            self.at(at, 0, Happening::Delete);
        }
        for node in 0..self.nodes.len() {
            let start = self.random.random_range(Duration::ZERO..5 * SECOND);
            self.at(start, node, Happening::Wake(0));
            for _ in 0..self.random.random_range(0..6) {
                let at = self.random.random_range(10 * SECOND..HEALED);
                let until = (at + self.random.random_range(SECOND / 10..30 * SECOND)).min(HEALED);
                match self.random.random_range(0..4) {
                    0 | 1 => {
                        self.at(at, node, Happening::Cut(true));
                        self.at(until, node, Happening::Cut(false));
                    }
                    2 => self.at(at, node, Happening::Pause(until - at)),
                    _ if deletes => {}
                    _ => {
                        self.at(at, node, Happening::Crash);
                        self.at(until, node, Happening::Restart);
                    }
                }
            }
            self.at(HEALED, node, Happening::Cut(false));
        }
    }

    fn at(&mut self, time: Duration, node: usize, happening: Happening) {
        let life = match happening {
            Happening::Cut(_)
            | Happening::Crash
            | Happening::Restart
            | Happening::Pause(_)
            | Happening::Delete => u64::MAX,
            _ => self.nodes[node].life,
        };
        self.queue.push(Reverse((time.max(self.now), self.happenings.len() as u64)));
        self.happenings.push(Some((node, life, happening)));
    }

    fn delay(&mut self) -> Duration {
        let late = self.now < HEALED && self.random.random_bool(0.2);
        let most = if late { 6 * SECOND } else { SECOND / 5 };
        self.random.random_range(SECOND / 1000..most)
    }

    fn run(mut self) -> (u32, Option<Violation>) {
        while let Some(Reverse((time, index))) = self.queue.pop() {
            if self.violation.is_some() || time > HEALED + RECOVERY {
                break;
            }
            self.now = time;
            if let Some((node, life, happening)) = self.happenings[index as usize].take() {
                self.happen(node, life, happening);
            }
        }
        if !self.nodes.iter().any(|node| node.active(self.now)) {
            self.violation.get_or_insert(Violation::NoLeader);
        }
        (self.terms, self.violation)
    }

    fn happen(&mut self, index: usize, life: u64, happening: Happening) {
        let now = self.now;
        // What was sent arrives although its sender has died.
        if let Happening::Arrival(id, request) = happening {
            return self.serve(index, life, id, request);
        }
        let node = &mut self.nodes[index];
        if life != u64::MAX && (life != node.life || !node.up) {
            return;
        }
        if life != u64::MAX && now < node.paused_until {
            let later = node.paused_until;
            return self.at(later, index, happening);
        }
        match happening {
            Happening::Arrival(..) => {}
            Happening::Wake(number) if number == node.wake => self.step(index, Event::Tick),
            Happening::Wake(_) => {}
            Happening::Answer(_) if node.cut => {}
            Happening::Answer(event) | Happening::Local(event) => self.step(index, event),
            Happening::Watch(number, version) => self.open_watch(index, number, &version),
            Happening::Watched(number, event) if number == node.watch => {
                if !node.cut {
                    return self.step(index, event);
                }
                // Some come late, some connections break.
                if self.random.random_bool(0.5) {
                    self.at(now + SECOND, index, Happening::Watched(number, event));
                } else {
                    self.nodes[index].watching = false;
                    self.nodes[index].watch += 1;
                    self.step(index, Event::WatchEnded(WatchEnd::Failed));
                }
            }
            Happening::Watched(..) => {}
            Happening::Cut(cut) => node.cut = cut,
            Happening::Pause(time) => node.paused_until = now + time,
            Happening::Crash => {
                node.up = false;
                node.term = None;
                node.watching = false;
            }
            Happening::Restart if node.up => {}
            Happening::Restart => {
                let pod = if self.random.random_bool(0.5) { index } else { index + 10 };
                let identity = Identity::new(format!("n{pod}"), "u");
                node.settings = Arc::new(Settings::new("renewer", "vdbi", identity));
                node.machine = Machine::new(node.settings.clone(), self.random.random());
                node.up = true;
                node.working = false;
                node.life += 1;
                self.step(index, Event::Tick);
            }
            Happening::Delete => {
                let all_saw = self.nodes.iter().all(|node| node.machine.holder().is_some());
                if let Some(lease) = self.lease.clone().filter(|_| all_saw) {
                    self.commit(true, lease);
                }
            }
        }
    }

    fn step(&mut self, index: usize, event: Event) {
        let node = &mut self.nodes[index];
        let local = node.clock(self.now);
        if matches!(event, Event::WorkEnded) {
            node.working = false;
        }
        for action in node.machine.step(local, event) {
            self.perform(index, action);
        }
        let now = self.now;
        if self.nodes.iter().filter(|node| node.active(now)).count() > 1 {
            self.violation.get_or_insert(Violation::TwoTerms);
        }
        let node = &mut self.nodes[index];
        node.wake += 1;
        if let Some(at) = node.machine.wake_at() {
            // Timers are up to a millisecond late.
            let wait = at.saturating_sub(local).div_f64(node.rate) + SECOND / 1000;
            let happening = Happening::Wake(node.wake);
            self.at(now + wait, index, happening);
        }
    }

    fn perform(&mut self, index: usize, action: Action) {
        let (now, delay) = (self.now, self.delay());
        let node = &mut self.nodes[index];
        let (cut, rate) = (node.cut, node.rate);
        match action {
            Action::Get { id, timeout } => {
                let event = Event::Read(id, Err(Failure::Unavailable(None)));
                self.at(now + timeout.div_f64(rate), index, Happening::Local(event));
                if !cut {
                    self.at(now + delay, index, Happening::Arrival(id, None));
                }
            }
            Action::Write { id, write, timeout } => {
                let object = write.object(&node.settings, Timestamp::UNIX_EPOCH);
                let event = Event::Written(id, Err(Failure::Unavailable(None)));
                self.at(now + timeout.div_f64(rate), index, Happening::Local(event));
                if !cut {
                    let create = matches!(write, Write::Create(_));
                    self.at(now + delay, index, Happening::Arrival(id, Some((create, object))));
                }
            }
            Action::Watch(version) => {
                node.watching = false;
                node.watch += 1;
                let number = node.watch;
                self.at(now + delay, index, Happening::Watch(number, version));
            }
            Action::Start { fence, sent, .. } => {
                assert!(!node.working, "one work at a time");
                node.term = Some(sent + node.settings.hard_deadline);
                node.working = true;
                self.terms += 1;
                let fence = fence.parse().unwrap();
                if fence <= self.last_fence {
                    self.violation.get_or_insert(Violation::FenceWentBack);
                }
                self.last_fence = fence;
                if now < HEALED && self.random.random_bool(0.3) {
                    let fails = now + self.random.random_range(Duration::ZERO..40 * SECOND);
                    self.at(fails.min(HEALED), index, Happening::Local(Event::WorkEnded));
                }
            }
            Action::Extend { sent } => {
                node.term = node.term.map(|deadline| deadline.max(sent + node.settings.hard_deadline));
            }
            Action::End(_) => {
                node.term = None;
                if node.working && self.random.random_bool(0.7) {
                    self.at(now + delay, index, Happening::Local(Event::WorkEnded));
                }
            }
            Action::Drop => self.at(now, index, Happening::Local(Event::WorkEnded)),
            Action::Stop(_) => unreachable!("nobody shuts down"),
        }
    }

    fn serve(&mut self, index: usize, life: u64, id: u64, request: Option<(bool, Value)>) {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let event = match (request, self.lease.clone()) {
            (None, lease) => Event::Read(id, Ok(lease.and_then(Record::parse))),
            (Some((true, object)), None) => {
                Event::Written(id, Ok(Record::parse(self.commit(false, object)).unwrap()))
            }
            (Some((false, object)), Some(lease)) if version(&object) == version(&lease) => {
                Event::Written(id, Ok(Record::parse(self.commit(false, object)).unwrap()))
            }
            (Some(_), _) => Event::Written(id, Err(Failure::Conflict)),
        };
        let arrives = self.now + self.delay();
        if self.nodes[index].life == life {
            self.at(arrives, index, Happening::Answer(event));
        }
    }

    fn commit(&mut self, delete: bool, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.history.len() + 1).to_string());
        self.lease = (!delete).then(|| object.clone());
        self.history.push((delete, object.clone()));
        for index in 0..self.nodes.len() {
            if self.nodes[index].watching {
                self.notify(index, delete, object.clone());
            }
        }
        object
    }

    fn open_watch(&mut self, index: usize, number: u64, version: &str) {
        if self.nodes[index].cut || number != self.nodes[index].watch {
            return;
        }
        self.nodes[index].watching = true;
        let missed = match version.parse::<usize>() {
            Ok(version) => self.history[version..].to_vec(),
            Err(_) => self.lease.clone().map(|lease| (false, lease)).into_iter().collect(),
        };
        for (delete, object) in missed {
            self.notify(index, delete, object);
        }
    }

    fn notify(&mut self, index: usize, delete: bool, object: Value) {
        let delay = self.delay();
        let node = &mut self.nodes[index];
        // One connection delivers in order.
        node.watched_until = node.watched_until.max(self.now + delay) + Duration::from_nanos(1);
        let (at, number) = (node.watched_until, node.watch);
        let record = Record::parse(object).unwrap();
        let event = if delete { Event::Deleted(record) } else { Event::Changed(record) };
        self.at(at, index, Happening::Watched(number, event));
    }
}

/// The violations in so many histories, whose slowest clock runs at this rate of the fastest.
fn violations(histories: u64, slowest: f64) -> Vec<(u64, Violation)> {
    let mut terms = 0;
    let mut violations = Vec::new();
    for seed in 0..histories {
        let (won, violation) = World::new(seed, slowest).run();
        terms += won;
        violations.extend(violation.map(|violation| (seed, violation)));
    }
    assert!(u64::from(terms) > histories * 2, "{terms} terms are too few to prove anything");
    violations
}

#[test]
fn no_two_terms_stand_at_once_and_there_is_a_leader_in_the_end() {
    assert_eq!(violations(500, 1.0 / 1.45), []);
}

/// That the simulation would notice.
#[test]
fn clocks_beyond_the_bound_let_two_terms_overlap() {
    assert!(violations(300, 1.0 / 2.5).iter().any(|(_, violation)| *violation == Violation::TwoTerms));
}
