//! One controller and its pods: one is evicted at a time.

use std::{collections::HashMap, time::Duration};

use super::PodFacts;

/// Pause after the first refusal; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// The longest pause while there is little left, and the longest of all as a share of what is left.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const RETRY_SHARE: u32 = 50;

/// The longest pause once the credential is dead.
const DEAD_RETRY: Duration = Duration::from_secs(300);

/// How far a pause is spread, so that what was refused together is not tried together.
const JITTER: f64 = 0.1;

/// Pauses between looks at an owner whose pods are not all ready again; they double up to the second.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// How long it is remembered how many pods an owner had, where no other of them waits.
const MEMORY: Duration = Duration::from_secs(3600);

/// How long pods whose credential is dead wait for an owner whose pods are not all ready.
const DEAD_WAIT: Duration = Duration::from_secs(900);

/// The shortest time between two evictions of an owner.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The pods of an owner, as a list shows them.
#[derive(Debug, Default)]
pub(super) struct Pods<'a> {
    /// How many are ready and do not end.
    pub(super) ready: usize,
    /// Those that are not ready.
    unready: Vec<&'a str>,
    /// Those that end.
    terminating: Vec<&'a str>,
}

/// The pods by the uid of their controller.
pub(super) fn by_owner(pods: &[PodFacts]) -> HashMap<&str, Pods<'_>> {
    let mut owners: HashMap<&str, Pods<'_>> = HashMap::new();
    for pod in pods {
        let Some(owner) = &pod.owner else { continue };
        let owner = owners.entry(owner).or_default();
        match pod {
            PodFacts { terminating: true, .. } => owner.terminating.push(&pod.uid),
            PodFacts { ready: true, .. } => owner.ready += 1,
            PodFacts { .. } => owner.unready.push(&pod.uid),
        }
    }
    owners
}

/// When the credentials of the pods that wait end, by the uid of their owner.
#[derive(Debug, Default)]
pub(super) struct Lives(HashMap<String, Vec<Life>>);

/// When the credential of a pod ends, and how much time before that the pod is given.
type Life = (Duration, Duration);

impl Lives {
    /// Of pods with their owners.
    pub(super) fn of_all<'a>(pods: impl Iterator<Item = (&'a str, Duration, Duration)>) -> Self {
        let mut lives: HashMap<String, Vec<Life>> = HashMap::new();
        for (owner, dies, margin) in pods {
            lives.entry(owner.to_owned()).or_default().push((dies, margin));
        }
        lives.values_mut().for_each(|lives| lives.sort());
        Self(lives)
    }

    /// Of an owner's pods, in the order in which they end.
    pub(super) fn of(&self, owner: &str) -> &[Life] {
        self.0.get(owner).map_or(&[], |lives| lives)
    }
}

/// What is known of an owner.
#[derive(Debug)]
pub(super) struct Owner {
    /// Where its pods are.
    pub(super) namespace: String,
    /// When its first pod began to wait.
    since: Duration,
    /// The pod whose eviction was sent and is not answered.
    sent: Option<Sent>,
    /// The last that was evicted, until the others are as many as before.
    last: Option<Last>,
    refusals: u32,
    paused_until: Duration,
    /// How often it was looked at since the last eviction.
    looks: u32,
}

#[derive(Clone, Debug)]
struct Sent {
    uid: String,
    ready: usize,
}

#[derive(Debug)]
struct Last {
    pod: Sent,
    at: Duration,
}

impl Owner {
    pub(super) fn new(namespace: &str, now: Duration) -> Self {
        let namespace = namespace.to_owned();
        Self { namespace, since: now, sent: None, last: None, refusals: 0, paused_until: now, looks: 0 }
    }

    /// Takes over what a look showed.
    pub(super) fn saw(&mut self, pods: &Pods<'_>) {
        self.looks += 1;
        if self.last.as_ref().is_some_and(|last| pods.replace(&last.pod)) {
            self.last = None;
        }
    }

    /// An eviction is sent, while so many pods are ready.
    pub(super) fn begin(&mut self, uid: &str, ready: usize) {
        self.sent = Some(Sent { uid: uid.to_owned(), ready });
    }

    pub(super) fn evicted(&mut self, now: Duration, uid: &str) {
        let sent = self.sent.take().unwrap_or_else(|| Sent { uid: uid.to_owned(), ready: 0 });
        *self = Self { last: Some(Last { pod: sent, at: now }), ..Self::new(&self.namespace, now) };
    }

    /// Nothing came of it, and nothing will.
    pub(super) fn gave_up(&mut self) {
        self.sent = None;
    }

    /// It is to be tried again, at the time that is returned.
    pub(super) fn refused(&mut self, now: Duration, left: Duration, random: f64) -> Duration {
        self.sent = None;
        let pause = FIRST_RETRY.saturating_mul(1 << self.refusals.min(16));
        let longest = match left.is_zero() {
            true => DEAD_RETRY,
            false => LONGEST_RETRY.max(left / RETRY_SHARE).min((left / 4).max(SHORTEST_PAUSE)),
        };
        self.refusals += 1;
        self.paused_until = now + pause.min(longest).mul_f64(1.0 - JITTER * random);
        self.paused_until
    }

    /// Whether one more may be tried, as far as the last one's answer goes.
    pub(super) fn may_begin(&self, now: Duration) -> bool {
        self.sent.is_none() && self.paused_until <= now
    }

    /// Whether all its pods are ready but those that wait for rotation, which may be what they need, and as many as before the last
    /// eviction. It sees also what others than this leader have ended.
    pub(super) fn is_settled(&self, pods: &Pods<'_>, waits: impl Fn(&str) -> bool) -> bool {
        self.last.is_none() && pods.terminating.is_empty() && pods.unready.iter().all(|uid| waits(uid))
    }

    /// How long that may be waited for: as long as each pod can still be given its margin before its credential ends. Where time
    /// is shorter than that, the pods are spread evenly over it.
    pub(super) fn latest(&self, now: Duration, lives: &[Life]) -> Duration {
        let lives = || lives.iter().filter(|(dies, _)| *dies > now);
        let Some((_, margin)) = lives().next() else { return self.since + DEAD_WAIT };
        let mut margins = Duration::ZERO;
        let mut latest = Duration::MAX;
        let mut pace = *margin;
        for (index, (dies, margin)) in (2..).zip(lives()) {
            margins += *margin;
            latest = latest.min(dies.saturating_sub(margins));
            pace = pace.min(dies.saturating_sub(self.since) / index);
        }
        latest.max(self.since + pace.max(SHORTEST_PAUSE))
    }

    /// Whether one of its pods is on its way to be replaced, and has been for no longer than this.
    pub(super) fn is_under_way(&self, now: Duration, within: Duration) -> bool {
        self.sent.is_some() || self.last.as_ref().is_some_and(|last| now < last.at + within)
    }

    /// When to look at it next, for the sake of pods that wait; `None` before an answer has come.
    pub(super) fn next_look(&self, now: Duration, lives: &[Life]) -> Option<Duration> {
        if self.sent.is_some() {
            return None;
        }
        if self.paused_until > now {
            return Some(self.paused_until);
        }
        let pause = now + FIRST_LOOK.saturating_mul(1 << self.looks.min(10)).min(LONGEST_LOOK);
        let latest = Some(self.latest(now, lives)).filter(|latest| *latest > now);
        Some(latest.map_or(pause, |latest| pause.min(latest)))
    }

    /// Whether it matters though none of its pods waits.
    pub(super) fn is_remembered(&self, now: Duration) -> bool {
        self.sent.is_some() || self.last.as_ref().is_some_and(|last| now < last.at + MEMORY)
    }
}

impl Pods<'_> {
    /// Whether there is another in the place of a pod that was evicted.
    fn replace(&self, evicted: &Sent) -> bool {
        let is_it = |uid: &&str| *uid == evicted.uid;
        self.ready >= evicted.ready && !self.terminating.iter().chain(&self.unready).any(is_it)
    }
}
