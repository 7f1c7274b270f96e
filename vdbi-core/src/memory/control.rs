//! What a test may do to the calls of an embedded implementation.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Keeps calls waiting at the door, before they have any effect, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    arrived: watch::Receiver<usize>,
    _open: DropGuard,
}

impl Hold {
    /// Waits until `count` calls have come to the door since the hold began. A call that was dropped there counts too.
    pub async fn arrived(&mut self, count: usize) {
        // The other half lives as long as the implementation; without it no call can come any more.
        if self.arrived.wait_for(|arrived| *arrived >= count).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Lets the calls go on.
    pub fn release(self) {}
}

/// The implementation's half of a [`Hold`].
#[derive(Clone, Debug)]
pub(super) struct Door {
    arrived: watch::Sender<usize>,
    open: CancellationToken,
}

impl Door {
    pub(super) fn new() -> (Self, Hold) {
        let door = Self { arrived: watch::Sender::new(0), open: CancellationToken::new() };
        let hold = Hold { arrived: door.arrived.subscribe(), _open: door.open.clone().drop_guard() };
        (door, hold)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_cancelled()
    }

    /// Comes to the door and waits until it opens.
    pub(super) async fn pass(self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        self.open.cancelled().await;
    }
}

/// The faults of an implementation whose operations are `O` and whose errors are `E`.
#[derive(Debug)]
pub(super) struct Control<O, E>(Mutex<State<O, E>>);

#[derive(Debug)]
struct State<O, E> {
    calls: Vec<O>,
    refusals: Vec<(O, E)>,
    lost_answers: Vec<(O, E)>,
    doors: Vec<(O, Door)>,
    available: bool,
    latency: Duration,
}

impl<O, E> Default for Control<O, E> {
    fn default() -> Self {
        Self(Mutex::new(State {
            calls: Vec::new(),
            refusals: Vec::new(),
            lost_answers: Vec::new(),
            doors: Vec::new(),
            available: true,
            latency: Duration::ZERO,
        }))
    }
}

impl<O: Copy + PartialEq, E> Control<O, E> {
    /// Counts the call, lets it wait where it has to, and fails it where a test wants that.
    pub(super) async fn enter(&self, operation: O, unavailable: impl FnOnce() -> E) -> Result<(), E> {
        let (doors, latency) = {
            let mut state = self.state();
            state.calls.push(operation);
            state.doors.retain(|(_, door)| !door.is_open());
            let doors =
                state.doors.iter().filter(|(held, _)| *held == operation).map(|(_, door)| door.clone());
            (doors.collect::<Vec<_>>(), state.latency)
        };
        for door in doors {
            door.pass().await;
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut state = self.state();
        match take_first(&mut state.refusals, operation) {
            Some(error) => Err(error),
            None if !state.available => Err(unavailable()),
            None => Ok(()),
        }
    }

    /// Takes the answer of a call away from its caller, where a test wants that.
    pub(super) fn answer<T>(&self, operation: O, answer: T) -> Result<T, E> {
        match take_first(&mut self.state().lost_answers, operation) {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    pub(super) fn refuse_next(&self, operation: O, error: E) {
        self.state().refusals.push((operation, error));
    }

    pub(super) fn lose_next_answer(&self, operation: O, error: E) {
        self.state().lost_answers.push((operation, error));
    }

    pub(super) fn hold(&self, operation: O) -> Hold {
        let (door, hold) = Door::new();
        self.state().doors.push((operation, door));
        hold
    }

    pub(super) fn set_available(&self, available: bool) {
        self.state().available = available;
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    pub(super) fn calls(&self, operation: O) -> usize {
        self.state().calls.iter().filter(|called| **called == operation).count()
    }

    fn state(&self) -> MutexGuard<'_, State<O, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock of an embedded implementation: a test that panicked while it held it must not hide its own message.
pub(super) fn lock<T>(state: &Arc<Mutex<T>>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_first<O: PartialEq, E>(faults: &mut Vec<(O, E)>, operation: O) -> Option<E> {
    let first = faults.iter().position(|(faulty, _)| *faulty == operation)?;
    Some(faults.remove(first).1)
}
