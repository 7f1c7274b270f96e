//! What a test may do to requests.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{call::Call, status::Refusal};
use crate::memory::{Hold, control::Door};

/// What happens to a request instead of its answer.
///
/// ```
/// # use std::time::Duration;
/// # use vdbi_core::memory::kubernetes::Fault;
/// let overloaded = Fault::status(429).retry_after(Duration::from_secs(3));
/// let answer_lost = Fault::reset().after_commit();
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) effect: Effect,
    pub(super) after_commit: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Effect {
    Refuse(Refusal),
    Reset,
    Silence,
}

/// Keeps a fault in force until it is dropped.
#[derive(Debug)]
pub struct FaultGuard(#[expect(dead_code, reason = "it acts when it is dropped")] DropGuard);

impl Fault {
    /// An answer with this HTTP status and a `Status` object of the matching reason.
    pub fn status(code: u16) -> Self {
        Self {
            effect: Effect::Refuse(Refusal::of_code(code, "a fault that a test asked for")),
            after_commit: false,
        }
    }

    /// The message of the `Status` object.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        if let Effect::Refuse(refusal) = &mut self.effect {
            refusal.message = message.into();
        }
        self
    }

    /// A `Retry-After` header, in whole seconds.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        if let Effect::Refuse(refusal) = &mut self.effect {
            refusal.retry_after = Some(delay);
        }
        self
    }

    /// A connection that breaks.
    pub fn reset() -> Self {
        Self { effect: Effect::Reset, after_commit: false }
    }

    /// No answer, ever.
    pub fn silence() -> Self {
        Self { effect: Effect::Silence, after_commit: false }
    }

    /// The request is carried out all the same; only its answer is replaced.
    #[must_use]
    pub fn after_commit(self) -> Self {
        Self { after_commit: true, ..self }
    }
}

type Predicate = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

/// The faults and holds in force.
#[derive(Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<Rule>>,
    doors: Mutex<Vec<(Predicate, Door)>>,
}

struct Rule {
    predicate: Predicate,
    fault: Fault,
    once: bool,
    over: CancellationToken,
}

impl Faults {
    pub(super) fn add_once(&self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static, fault: Fault) {
        let over = CancellationToken::new();
        lock(&self.rules).push(Rule { predicate: Arc::new(predicate), fault, once: true, over });
    }

    pub(super) fn add(
        &self,
        predicate: impl Fn(&Call) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> FaultGuard {
        let over = CancellationToken::new();
        let guard = FaultGuard(over.clone().drop_guard());
        lock(&self.rules).push(Rule { predicate: Arc::new(predicate), fault, once: false, over });
        guard
    }

    pub(super) fn hold(&self, predicate: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Hold {
        let (door, hold) = Door::new();
        lock(&self.doors).push((Arc::new(predicate), door));
        hold
    }

    /// Waits at the doors that are closed for this call, then says what goes wrong with it.
    pub(super) async fn meet(&self, call: &Call) -> Option<Fault> {
        let doors: Vec<Door> = {
            let mut doors = lock(&self.doors);
            doors.retain(|(_, door)| !door.is_open());
            doors.iter().filter(|(predicate, _)| predicate(call)).map(|(_, door)| door.clone()).collect()
        };
        for door in doors {
            door.pass().await;
        }
        let mut rules = lock(&self.rules);
        rules.retain(|rule| !rule.over.is_cancelled());
        let first = rules.iter().position(|rule| (rule.predicate)(call))?;
        if rules[first].once { Some(rules.remove(first).fault) } else { Some(rules[first].fault.clone()) }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("rules", &lock(&self.rules).len()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
