//! The clock by which the right to act is measured.

use std::{fmt, time::Duration};

/// A clock that never goes back and is only compared with itself.
///
/// The one for production has to go on while the machine is suspended (`CLOCK_BOOTTIME` of clock_gettime(2); `BoottimeClock` of
/// vdbi-lifecycle is one): a leader that wakes up must not take its old term for a standing one. Tests use [`TokioClock`], which
/// they can pause.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no clock by which the right to act can be measured",
    note = "use `vdbi_lifecycle::election::BoottimeClock` (`TokioClock` in tests), or implement `vdbi_core::clock::Clock`"
)]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time since an arbitrary origin, which is the same for the whole life of the clock. It must not block.
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
