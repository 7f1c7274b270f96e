//! What happens when, and what must never happen.

use std::{cmp::Reverse, collections::BinaryHeap};

use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Action, Duration, Event, Failure, Fault, Profile, Record, SECOND, WatchEnd, Write,
    api::{Api, Sent},
    node::Node,
};

/// Faults end here.
const HEALED: Duration = Duration::from_secs(150);

/// Lease duration and hard deadline on the slowest clock, and the longest backoff and some requests in real time.
const RECOVERY: Duration = Duration::from_secs(70);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    TwoTerms,
    FenceWentBack,
    EffectInAnothersTerm,
    NoLeader,
    SlowFailover,
}

#[derive(Clone, Debug)]
enum Happening {
    Wake(u64),
    /// A request arrives: none is a GET.
    Arrival(u64, Option<Sent>),
    /// What the machine is told, if the link is up.
    Answer(Event),
    /// What it is told in any case.
    Local(Event),
    Watched(u64, Event),
    Watch(u64, String),
    /// The work of that term begins an effect.
    Effect(u32),
    /// An effect takes place, wherever its author is by now.
    Effected,
    Cut(bool),
    Crash,
    CrashLeader,
    Restart,
    Shutdown,
    /// Another replica has less to do.
    Yield,
    /// It gets other leases, or loses them.
    Load(u32),
    Pause(Duration),
    Delete,
}

pub(super) struct World {
    profile: Profile,
    random: StdRng,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: Vec<Option<(usize, u64, Happening)>>,
    nodes: Vec<Node>,
    api: Api,
    last_fence: usize,
    terms: u32,
    crashed_at: Option<Duration>,
    violation: Option<Violation>,
}

impl World {
    pub(super) fn new(seed: u64, profile: Profile) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes =
            (0..random.random_range(2..=5)).map(|index| Node::new(index, profile, &mut random)).collect();
        let mut world = Self {
            profile,
            random,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            nodes,
            api: Api { fault: profile.fault, ..Api::default() },
            last_fence: 0,
            terms: 0,
            crashed_at: None,
            violation: None,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        // A replica that starts after a deletion has not seen the lease and may create it at once; that is known.
        let deletes = self.profile.deletions && self.random.random_bool(0.2);
        if deletes {
            // Two within one lease duration are too many; that is known, too.
            for earliest in [20, 65, 110] {
                let at = self.random.random_range(earliest * SECOND..(earliest + 20) * SECOND);
                self.at(at, 0, Happening::Delete);
            }
        }
        if self.profile.one_crash {
            let at = self.random.random_range(20 * SECOND..100 * SECOND);
            self.at(at, 0, Happening::CrashLeader);
        }
        for node in 0..self.nodes.len() {
            let start = self.random.random_range(Duration::ZERO..5 * SECOND);
            self.at(start, node, Happening::Wake(0));
            // A replica that waits longer for an absent lease is deaf to more deletions; that, too, is known.
            for _ in 0..if deletes { 0 } else { self.profile.loads } {
                let at = self.random.random_range(Duration::ZERO..HEALED);
                let load = self.random.random_range(0..12);
                self.at(at, node, Happening::Load(load));
                let at = self.random.random_range(10 * SECOND..HEALED);
                self.at(at, node, Happening::Yield);
            }
            for _ in 0..self.random.random_range(0..=self.profile.faults) {
                let at = self.random.random_range(10 * SECOND..HEALED);
                let until = (at + self.random.random_range(SECOND / 10..30 * SECOND)).min(HEALED);
                match self.random.random_range(0..5) {
                    0 | 1 => self.cut(node, at, until),
                    2 => self.at(at, node, Happening::Pause(until - at)),
                    _ if deletes => {}
                    fault => {
                        let end = if fault == 3 { Happening::Crash } else { Happening::Shutdown };
                        self.at(at, node, end);
                        self.at(until, node, Happening::Restart);
                    }
                }
            }
            self.at(HEALED, node, Happening::Cut(false));
            self.at(HEALED, node, Happening::Restart);
        }
    }

    fn cut(&mut self, node: usize, from: Duration, until: Duration) {
        self.at(from, node, Happening::Cut(true));
        self.at(until, node, Happening::Cut(false));
    }

    fn at(&mut self, time: Duration, node: usize, happening: Happening) {
        let life = match happening {
            Happening::Wake(_)
            | Happening::Arrival(..)
            | Happening::Answer(_)
            | Happening::Local(_)
            | Happening::Watched(..)
            | Happening::Watch(..)
            | Happening::Effect(_) => self.nodes[node].life,
            _ => u64::MAX,
        };
        self.queue.push(Reverse((time.max(self.now), self.happenings.len() as u64)));
        self.happenings.push(Some((node, life, happening)));
    }

    fn delay(&mut self) -> Duration {
        let late = self.now < HEALED && self.random.random_bool(self.profile.late);
        let most = if late { 6 * SECOND } else { SECOND / 5 };
        self.random.random_range(SECOND / 1000..most)
    }

    /// How many terms were won, and what went wrong first.
    pub(super) fn run(mut self) -> (u32, Option<Violation>) {
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
        match happening {
            Happening::Arrival(id, request) => return self.serve(index, life, id, request),
            Happening::Effected => return self.effected(index),
            _ => {}
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
            Happening::Arrival(..) | Happening::Effected => {}
            Happening::Wake(number) if number == node.wake => self.step(index, Event::Tick),
            Happening::Wake(_) => {}
            Happening::Answer(_) if node.cut => {}
            // Work waits for what it has begun.
            Happening::Local(Event::WorkEnded) if now < node.busy_until => {
                node.ending = true;
                let later = node.busy_until;
                self.at(later, index, happening);
            }
            Happening::Answer(event) | Happening::Local(event) => self.step(index, event),
            Happening::Watch(number, version) => self.open_watch(index, number, &version),
            Happening::Watched(number, event) if number == node.watch => self.watched(index, number, event),
            Happening::Watched(..) => {}
            Happening::Effect(term) => self.effect(index, term),
            Happening::Cut(cut) => node.cut = cut,
            Happening::Pause(time) => node.paused_until = now + time,
            Happening::Crash => node.crash(),
            Happening::CrashLeader => {
                if let Some(leader) = self.nodes.iter_mut().find(|node| node.active(now)) {
                    leader.crash();
                    self.crashed_at = Some(now);
                }
            }
            Happening::Restart if node.up => {}
            Happening::Restart => {
                node.restart(&mut self.random);
                self.step(index, Event::Tick);
            }
            Happening::Shutdown if node.up && now >= node.paused_until => self.step(index, Event::Shutdown),
            Happening::Shutdown => {}
            Happening::Yield | Happening::Load(_) if now < node.paused_until => {}
            Happening::Yield => self.step(index, Event::Yield),
            Happening::Load(load) => {
                let local = node.clock(now);
                node.machine.set_load(local, load);
                self.step(index, Event::Tick);
            }
            Happening::Delete => {
                let all_saw = self.nodes.iter().all(|node| node.machine.holder().is_some());
                if all_saw && self.api.delete() {
                    self.publish();
                }
            }
        }
    }

    fn step(&mut self, index: usize, event: Event) {
        let node = &mut self.nodes[index];
        let local = node.clock(self.now);
        if matches!(event, Event::WorkEnded) {
            node.working = None;
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
        match action {
            Action::Get { id, timeout } => self.send(index, id, timeout, None),
            Action::Write { id, write, timeout } => {
                let object = write.object(&node.settings, Timestamp::UNIX_EPOCH);
                let create = matches!(write, Write::Create(_));
                self.send(index, id, timeout, Some((create, object)));
            }
            Action::Watch(version) => {
                node.watching = false;
                node.watch += 1;
                let number = node.watch;
                self.at(now + delay, index, Happening::Watch(number, version));
            }
            Action::Start { fence, sent, .. } => self.start(index, &fence, sent),
            Action::Extend { sent } => {
                node.term = node.term.map(|deadline| deadline.max(sent + node.settings.hard_deadline));
                if now < HEALED && self.random.random_bool(self.profile.cut_after_renewal) {
                    self.cut(index, now, (now + 30 * SECOND).min(HEALED));
                }
            }
            Action::End(_) => {
                node.term = None;
                if node.working.is_some() && self.random.random_bool(0.7) {
                    self.at(now + delay, index, Happening::Local(Event::WorkEnded));
                }
            }
            Action::WindDown => {
                node.ending = true;
                self.at(now + delay, index, Happening::Local(Event::WorkEnded));
            }
            // Here every effect lasts as long as its term had when it began: the harder case.
            Action::Cut => {}
            Action::Drop => self.at(now, index, Happening::Local(Event::WorkEnded)),
            Action::Stop(_) => node.crash(),
        }
    }

    fn send(&mut self, index: usize, id: u64, timeout: Duration, request: Option<Sent>) {
        let (now, delay) = (self.now, self.delay());
        let node = &self.nodes[index];
        let lost = Failure::Unavailable(None);
        let event = match request {
            None => Event::Read(id, Err(lost)),
            Some(_) => Event::Written(id, Err(lost)),
        };
        let cut = node.cut;
        self.at(now + timeout.div_f64(node.rate), index, Happening::Local(event));
        if !cut {
            self.at(now + delay, index, Happening::Arrival(id, request));
        }
    }

    fn start(&mut self, index: usize, fence: &str, sent: Duration) {
        let now = self.now;
        self.terms += 1;
        let term = self.terms;
        let node = &mut self.nodes[index];
        assert!(node.working.is_none(), "one work at a time");
        node.term = Some(sent + node.settings.hard_deadline);
        node.working = Some(term);
        node.ending = false;
        let fence = fence.parse().unwrap();
        if fence <= self.last_fence {
            self.violation.get_or_insert(Violation::FenceWentBack);
        }
        self.last_fence = fence;
        if self.crashed_at.take().is_some_and(|crash| now - crash > 16 * SECOND) {
            self.violation.get_or_insert(Violation::SlowFailover);
        }
        self.at(now, index, Happening::Effect(term));
        if now < HEALED && self.random.random_bool(self.profile.work_fails) {
            let fails = now + self.random.random_range(Duration::ZERO..40 * SECOND);
            self.at(fails.min(HEALED), index, Happening::Local(Event::WorkEnded));
        }
    }

    /// As `Term::run`: nothing when the term is over, and nothing that outlasts it.
    fn effect(&mut self, index: usize, term: u32) {
        let now = self.now;
        let node = &self.nodes[index];
        if node.working != Some(term) || node.ending {
            return;
        }
        let remaining = node.term.map_or(Duration::ZERO, |deadline| deadline.saturating_sub(node.clock(now)));
        let longest = match self.profile.fault {
            Some(Fault::UncheckedEffect) => SECOND / 100,
            _ => remaining.div_f64(node.rate),
        };
        if !longest.is_zero() {
            let takes = self.random.random_range(Duration::ZERO..longest);
            self.at(now + takes, index, Happening::Effected);
            self.nodes[index].busy_until = self.nodes[index].busy_until.max(now + takes);
        }
        let next = now + self.random.random_range(SECOND / 10..3 * SECOND);
        self.at(next, index, Happening::Effect(term));
    }

    fn effected(&mut self, index: usize) {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        if others.into_iter().any(|(_, other)| other.active(self.now)) {
            self.violation.get_or_insert(Violation::EffectInAnothersTerm);
        }
    }

    fn serve(&mut self, index: usize, life: u64, id: u64, request: Option<Sent>) {
        let event = match request {
            None => Event::Read(id, Ok(self.api.read())),
            Some(sent) => {
                let result = self.api.write(sent);
                if result.is_ok() {
                    self.publish();
                }
                Event::Written(id, result)
            }
        };
        let node = &self.nodes[index];
        let almost_too_late = node.settings.request_timeout.mul_f64(0.9).div_f64(node.rate);
        let slow = self.now < HEALED && self.random.random_bool(self.profile.slow_answer);
        let arrives = self.now + if slow { almost_too_late } else { self.delay() };
        if self.nodes[index].life == life {
            self.at(arrives, index, Happening::Answer(event));
        }
    }

    /// Tells the watches what was committed last.
    fn publish(&mut self) {
        let (delete, object) = self.api.history.last().cloned().unwrap();
        for index in 0..self.nodes.len() {
            if self.nodes[index].watching {
                self.notify(index, delete, Record::parse(object.clone()).unwrap());
            }
        }
    }

    fn open_watch(&mut self, index: usize, number: u64, version: &str) {
        if self.nodes[index].cut || number != self.nodes[index].watch {
            return;
        }
        self.nodes[index].watching = true;
        for (delete, object) in self.api.since(version) {
            self.notify(index, delete, Record::parse(object).unwrap());
        }
    }

    fn notify(&mut self, index: usize, delete: bool, record: Record) {
        let delay = self.delay();
        let node = &mut self.nodes[index];
        // One connection delivers in order.
        node.watched_until = node.watched_until.max(self.now + delay) + Duration::from_nanos(1);
        let (at, number) = (node.watched_until, node.watch);
        let event = if delete { Event::Deleted(record) } else { Event::Changed(record) };
        self.at(at, index, Happening::Watched(number, event));
    }

    fn watched(&mut self, index: usize, number: u64, event: Event) {
        if !self.nodes[index].cut {
            return self.step(index, event);
        }
        // Some come late, some connections break.
        if self.random.random_bool(0.5) {
            return self.at(self.now + SECOND, index, Happening::Watched(number, event));
        }
        self.nodes[index].watching = false;
        self.nodes[index].watch += 1;
        self.step(index, Event::WatchEnded(WatchEnd::Failed));
    }
}
