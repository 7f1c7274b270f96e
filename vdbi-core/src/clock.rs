//! The clock by which the right to act is measured.

use std::{fmt, time::Duration};

/// A clock that never goes back and is only compared with itself. The one for production must go on while the machine is
/// suspended (CLOCK_BOOTTIME); tests use [`TokioClock`], which they can pause.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time since an arbitrary origin.
    fn now(&self) -> Duration;
}

/// tokio's clock, which `tokio::time::pause` and `advance` control.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
}

impl TokioClock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}
