//! Which pod to evict when: decisions without a clock, a server or a task.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use vdbi_core::ledger::{Entry, EntryId};

use crate::renewer::plan::{Step, Task};

mod owner;

pub(crate) use super::look::Look;

use owner::{Lives, Owner, Pods};

/// Pause before the first look at a namespace: what ends there is told one after the other.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// The shortest pause between two looks at a namespace that nothing but news asks for.
const NEWS_PAUSE: Duration = Duration::from_secs(5);

/// Pause after a look that failed; it doubles with each further one.
const FAILED_LOOK: Duration = Duration::from_secs(2);

/// The longest pause between looks that are needed.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// The share of what is left over which the beginning is spread at random, so that credentials issued together are not replaced
/// together.
const SPREAD: f64 = 0.25;

/// What one rotation is given before the credential's end, at most: a quarter of what was left where that is less.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a rotation takes its place among those that are under way, at most.
const PLACE: Duration = Duration::from_secs(120);

/// How long a rotation takes, for want of anything better: by it more go at once where time is short.
const TYPICAL: Duration = Duration::from_secs(30);

/// How a renewal went that says something about the credential's end.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// What was renewed.
    pub(crate) task: Task,
    /// Its entry.
    pub(crate) entry: Arc<Entry>,
    /// What came of it.
    pub(crate) fate: Fate,
}

/// What is known of the end of a lease or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ends after this time, whatever is renewed.
    EndsIn(Duration),
    /// No end is in sight.
    GoesOn,
    /// It no longer exists.
    Lost,
}

/// What a list tells of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
    /// The uid of its controller; `None` where nobody makes another in its place.
    pub(crate) owner: Option<String>,
    /// Whether it asks for rotation.
    pub(crate) rotates: bool,
    /// Whether it is being deleted.
    pub(crate) terminating: bool,
    /// Whether it is ready.
    pub(crate) ready: bool,
    /// The entries that it claims.
    pub(crate) ids: Vec<EntryId>,
}

impl PodFacts {
    /// Whether this is the entry's own pod, as far as the entry knows it.
    pub(crate) fn holds(&self, id: EntryId, entry: &Entry) -> bool {
        self.ids.contains(&id)
            && entry.pod.name.as_ref().is_none_or(|known| *known == self.name)
            && entry.pod.uid.as_ref().is_none_or(|known| *known == self.uid)
    }
}

/// The labelled pods of a namespace that have not ended.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The namespace.
    pub(crate) namespace: String,
    /// Its pods.
    pub(crate) pods: Vec<PodFacts>,
}

/// A pod to evict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
    /// The database whose credential ends first.
    pub(crate) database: String,
    /// How long that still lives; zero where it is dead.
    pub(crate) left: Duration,
    /// The pod's controller.
    owner: String,
}

/// What there is to do after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Evict this pod.
    Evict(Eviction),
    /// Tell this pod that it cannot be rotated, as nobody would make another.
    NoController(Eviction),
}

/// What came of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pod ends.
    Evicted,
    /// A disruption budget has nothing left.
    Blocked,
    /// The right to evict is missing.
    Refused,
    /// The pod is gone.
    Vanished,
    /// It is unknown, or the API server failed.
    Failed,
}

/// The pods that are to be rotated. Times are on any clock that never goes back.
#[derive(Debug)]
pub(crate) struct Plan {
    at_once: usize,
    endings: HashMap<EntryId, Ending>,
    namespaces: BTreeMap<String, Namespace>,
    /// By uid.
    waiting: HashMap<String, Waiting>,
    /// By uid.
    owners: HashMap<String, Owner>,
    looking: bool,
}

/// A credential whose end is known.
#[derive(Debug)]
struct Ending {
    entry: Arc<Entry>,
    lease: Option<Duration>,
    token: Option<Duration>,
    /// How much was left when the end came in sight.
    left: Duration,
    /// Not before this time.
    begin: Duration,
    /// Its pod was told that nobody would make it anew.
    hopeless: bool,
}

#[derive(Debug, Default)]
struct Namespace {
    /// When to look, unless there is no need.
    due: Option<Duration>,
    looked: Option<Duration>,
    failures: u32,
}

/// A pod that waits for its turn.
#[derive(Clone, Debug)]
struct Waiting {
    namespace: String,
    name: String,
    owner: String,
    database: String,
    /// When the first of its credentials ends.
    dies: Duration,
    /// How much was left of it when that came in sight.
    left: Duration,
    begin: Duration,
    refusals: u32,
    warned: bool,
}

impl Ending {
    fn dies(&self) -> Option<Duration> {
        self.lease.into_iter().chain(self.token).min()
    }
}

impl Waiting {
    fn margin(&self) -> Duration {
        MARGIN.min(self.left.mul_f64(SPREAD))
    }
}

impl Plan {
    /// Rotates this many pods at once, and more only where some would otherwise be too late.
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            endings: HashMap::new(),
            namespaces: BTreeMap::new(),
            waiting: HashMap::new(),
            owners: HashMap::new(),
            looking: false,
        }
    }

    /// Enters what a renewal told. `random` is in `0.0..1.0`.
    pub(crate) fn note(&mut self, now: Duration, note: Note, random: f64) {
        let Note { task: Task { id, step }, entry, fate } = note;
        let left = match fate {
            Fate::EndsIn(left) => Some(left),
            Fate::Lost => Some(Duration::ZERO),
            Fate::GoesOn => None,
        };
        if left.is_none() && !self.endings.contains_key(&id) {
            return;
        }
        let namespace = entry.pod.namespace.clone();
        let ending = self.endings.entry(id).or_insert_with(|| {
            let left = left.unwrap_or_default();
            let begin = now + left.mul_f64(SPREAD * random);
            Ending { entry, lease: None, token: None, left, begin, hopeless: false }
        });
        let dies = left.map(|left| now + left);
        match (fate, step) {
            (Fate::Lost, _) => {
                (ending.lease, ending.token) = (dies, dies);
                ending.begin = ending.begin.min(now);
            }
            (_, Step::Token) => ending.token = dies,
            (_, Step::Lease | Step::Read) => ending.lease = dies,
        }
        let over = ending.dies().is_none() || (ending.hopeless && fate == Fate::Lost);
        if over {
            self.endings.remove(&id);
        }
        if over || !self.endings[&id].hopeless {
            let state = self.namespaces.entry(namespace).or_default();
            let at = state.looked.map_or(now + FIRST_LOOK, |at| (at + NEWS_PAUSE).max(now + FIRST_LOOK));
            state.due = Some(state.due.map_or(at, |due| due.min(at)));
        }
    }

    /// When to look at a namespace next.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if self.looking {
            return None;
        }
        self.namespaces.values().filter_map(|namespace| namespace.due).min()
    }

    /// What to look at now. The next look comes after [`saw`](Self::saw).
    pub(crate) fn take_due(&mut self, now: Duration) -> Vec<Look> {
        let mut looks = Vec::new();
        for (namespace, state) in &mut self.namespaces {
            if state.due.is_some_and(|due| due <= now) {
                state.due = None;
                let entries =
                    self.endings.iter().filter(|(_, ending)| ending.entry.pod.namespace == *namespace);
                let entries = entries.map(|(&id, ending)| (id, ending.entry.clone())).collect();
                looks.push(Look { namespace: namespace.clone(), entries });
            }
        }
        self.looking = !looks.is_empty();
        looks
    }

    /// Takes over what looks at some namespaces showed, and says what to do now. Of the namespaces that `failed` nothing is known.
    pub(crate) fn saw(&mut self, now: Duration, seen: Vec<Seen>, failed: Vec<String>) -> Vec<Act> {
        self.looking = false;
        let mut acts = Vec::new();
        let mut pods = HashMap::new();
        for Seen { namespace, pods: seen } in &seen {
            self.judge(now, namespace, seen, &mut acts);
            pods.extend(owner::by_owner(seen));
        }
        let lives = self.lives();
        for (uid, owner) in &mut self.owners {
            if seen.iter().any(|seen| seen.namespace == owner.namespace) {
                owner.saw(pods.get(uid.as_str()).unwrap_or(&Pods::default()));
            }
        }
        acts.extend(self.choose(now, &pods, &lives).into_iter().map(Act::Evict));
        for Seen { namespace, .. } in &seen {
            let due = self.next_look(now, namespace, &lives);
            let state = self.namespaces.entry(namespace.clone()).or_default();
            (state.looked, state.failures) = (Some(now), 0);
            state.due = [state.due, due].into_iter().flatten().min();
        }
        for namespace in failed {
            let state = self.namespaces.entry(namespace).or_default();
            let pause = FAILED_LOOK.saturating_mul(1 << state.failures.min(10)).min(LONGEST_LOOK);
            (state.due, state.failures) = (Some(now + pause), state.failures + 1);
        }
        self.forget(now, &lives);
        acts
    }

    /// Enters what came of an eviction. `random` is in `0.0..1.0`. Returns whether the pod is to be warned.
    pub(crate) fn settle(
        &mut self,
        now: Duration,
        eviction: &Eviction,
        outcome: Outcome,
        random: f64,
    ) -> bool {
        let Eviction { namespace, uid, owner, .. } = eviction;
        let owner = self.owners.entry(owner.clone()).or_insert_with(|| Owner::new(namespace, now));
        let waiting = self.waiting.get_mut(uid);
        let mut due = now + FIRST_LOOK;
        let mut warn = false;
        match (outcome, waiting) {
            (Outcome::Evicted, _) => {
                owner.evicted(now, uid);
                self.waiting.remove(uid);
                // What was refused before says nothing any more: the earliest end goes first again.
                let others = self.waiting.values_mut().filter(|pod| pod.owner == eviction.owner);
                others.for_each(|pod| pod.refusals = 0);
            }
            (Outcome::Vanished, _) => {
                owner.gave_up();
                self.waiting.remove(uid);
            }
            (_, None) => owner.gave_up(),
            (Outcome::Blocked | Outcome::Refused | Outcome::Failed, Some(waiting)) => {
                let left = waiting.dies.saturating_sub(now);
                due = owner.refused(now, left, random);
                waiting.refusals += 1;
                let near = left <= waiting.left.mul_f64(SPREAD);
                warn = (near || outcome == Outcome::Refused) && !waiting.warned;
                waiting.warned |= warn;
            }
        }
        let state = self.namespaces.entry(namespace.clone()).or_default();
        state.due = Some(state.due.map_or(due, |at| at.min(due)));
        warn
    }

    /// How many pods wait to be evicted.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Finds the pods of the credentials that end in a namespace.
    fn judge(&mut self, now: Duration, namespace: &str, pods: &[PodFacts], acts: &mut Vec<Act>) {
        let mut waiting: HashMap<String, Waiting> = HashMap::new();
        let mut holders: HashMap<EntryId, Vec<&PodFacts>> = HashMap::new();
        for pod in pods.iter().filter(|pod| pod.rotates && !pod.terminating) {
            pod.ids.iter().for_each(|id| holders.entry(*id).or_default().push(pod));
        }
        self.endings.retain(|id, ending| {
            if ending.entry.pod.namespace != namespace {
                return true;
            }
            let holders = holders.get(id).into_iter().flatten();
            let holders: Vec<_> = holders.filter(|pod| pod.holds(*id, &ending.entry)).collect();
            let Some(dies) = ending.dies() else { return false };
            let nobody = holders.iter().all(|pod| pod.owner.is_none());
            for pod in &holders {
                let before = self.waiting.get(&pod.uid);
                let candidate = Waiting {
                    namespace: namespace.to_owned(),
                    name: pod.name.clone(),
                    owner: pod.owner.clone().unwrap_or_default(),
                    database: ending.entry.database.clone(),
                    dies,
                    left: ending.left,
                    begin: ending.begin,
                    refusals: before.map_or(0, |before| before.refusals),
                    warned: before.is_some_and(|before| before.warned),
                };
                if pod.owner.is_some() {
                    let first = waiting.entry(pod.uid.clone()).or_insert_with(|| candidate.clone());
                    if dies < first.dies {
                        *first = candidate;
                    }
                } else if nobody && !ending.hopeless {
                    acts.push(Act::NoController(eviction(now, &pod.uid, &candidate)));
                }
            }
            ending.hopeless = nobody;
            // Whatever is forgotten here comes back with the next renewal.
            !holders.is_empty()
        });
        self.waiting.retain(|_, pod| pod.namespace != namespace);
        for pod in waiting.values() {
            self.owners.entry(pod.owner.clone()).or_insert_with(|| Owner::new(namespace, now));
        }
        self.waiting.extend(waiting);
    }

    /// The pods whose turn it is, of each owner that was seen one at most.
    fn choose(&mut self, now: Duration, seen: &HashMap<&str, Pods<'_>>, lives: &Lives) -> Vec<Eviction> {
        let mut turns: HashMap<&str, (&str, &Waiting)> = HashMap::new();
        for (uid, pod) in self.waiting.iter().filter(|(_, pod)| pod.begin <= now) {
            if !seen.contains_key(pod.owner.as_str()) {
                continue;
            }
            // One that is refused lets the others of its owner try.
            let order = |uid: &str, pod: &Waiting| (pod.refusals, pod.dies, uid.to_owned());
            let turn = turns.entry(&pod.owner).or_insert((uid, pod));
            if order(uid, pod) < order(turn.0, turn.1) {
                *turn = (uid, pod);
            }
        }
        let mut turns: Vec<_> = turns
            .into_iter()
            .filter(|(uid, _)| {
                let (Some(owner), Some(pods)) = (self.owners.get(*uid), seen.get(uid)) else { return false };
                let settled = owner.is_settled(pods, |pod| self.waiting.contains_key(pod));
                owner.may_begin(now) && (settled || now >= owner.latest(now, lives.of(uid)))
            })
            .map(|(owner, (uid, pod))| (pod.dies, owner.to_owned(), eviction(now, uid, pod)))
            .collect();
        turns.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        turns.truncate(self.places(now));
        for (_, uid, eviction) in &turns {
            if let (Some(owner), Some(pods)) = (self.owners.get_mut(uid), seen.get(uid.as_str())) {
                owner.begin(&eviction.uid, pods.ready);
            }
        }
        turns.into_iter().map(|(_, _, eviction)| eviction).collect()
    }

    /// Of every owner with pods that wait.
    fn lives(&self) -> Lives {
        Lives::of_all(self.waiting.values().map(|pod| (&*pod.owner, pod.dies, pod.margin())))
    }

    /// How many more may begin now. What is too late already is no reason for more.
    fn places(&self, now: Duration) -> usize {
        let mut lives: Vec<_> =
            self.waiting.values().map(|pod| pod.dies.saturating_sub(now + pod.margin())).collect();
        lives.retain(|left| !left.is_zero());
        lives.sort();
        let needed = (1..).zip(&lives).map(|(pods, left): (u32, _)| {
            let turns = left.max(&TYPICAL).as_secs_f64() / TYPICAL.as_secs_f64();
            (f64::from(pods) / turns).ceil() as usize
        });
        let needed = needed.max().unwrap_or_default();
        let under_way = |place| self.owners.values().filter(|owner| owner.is_under_way(now, place)).count();
        self.at_once.saturating_sub(under_way(PLACE)).max(needed.saturating_sub(under_way(TYPICAL)))
    }

    /// When to look at a namespace again, by what waits there and by what is under way: the place of one that is done is for
    /// another.
    fn next_look(&self, now: Duration, namespace: &str, lives: &Lives) -> Option<Duration> {
        let waiting = self.waiting.values().filter(|pod| pod.namespace == namespace);
        let waiting = waiting.filter_map(|pod| {
            let owner = self.owners.get(&pod.owner)?;
            if pod.begin > now { Some(pod.begin) } else { owner.next_look(now, lives.of(&pod.owner)) }
        });
        let under_way = self
            .owners
            .values()
            .filter(|owner| owner.namespace == namespace && owner.is_under_way(now, PLACE));
        waiting.chain(under_way.filter_map(|owner| owner.next_look(now, &[]))).min()
    }

    /// Drops what nothing refers to any more.
    fn forget(&mut self, now: Duration, lives: &Lives) {
        self.owners.retain(|uid, owner| !lives.of(uid).is_empty() || owner.is_remembered(now));
        let in_use: HashSet<&str> =
            self.endings.values().map(|ending| &*ending.entry.pod.namespace).collect();
        self.namespaces.retain(|name, state| {
            let recent = state.looked.is_some_and(|looked| now < looked + NEWS_PAUSE);
            state.due.is_some() || recent || in_use.contains(name.as_str())
        });
    }
}

fn eviction(now: Duration, uid: &str, pod: &Waiting) -> Eviction {
    let Waiting { namespace, name, owner, database, dies, .. } = pod;
    Eviction {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: uid.to_owned(),
        database: database.clone(),
        left: dies.saturating_sub(now),
        owner: owner.clone(),
    }
}

#[cfg(test)]
mod tests;
