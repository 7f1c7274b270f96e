//! A clock that a test can set ahead.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::{Clock, TokioClock};

/// tokio's clock, which pauses, and jumps as that of a machine does that was suspended: timers have stood still meanwhile.
#[derive(Debug, Default)]
pub struct SuspendableClock {
    tokio: TokioClock,
    suspended: Mutex<Duration>,
}

impl SuspendableClock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time passes, and nothing happens in it.
    pub fn suspend(&self, time: Duration) {
        *self.suspended.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }
}

impl Clock for SuspendableClock {
    fn now(&self) -> Duration {
        self.tokio.now() + *self.suspended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
