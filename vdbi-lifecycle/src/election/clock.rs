//! The production clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vdbi_core::clock::Clock;

/// `CLOCK_BOOTTIME`: the time since the machine booted. Unlike [`std::time::Instant`] it goes on while the machine is
/// suspended, so that a node which wakes up knows that its term is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoottimeClock;

impl Clock for BoottimeClock {
    fn now(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let first = BoottimeClock.now();
        assert!(!first.is_zero());
        assert!(BoottimeClock.now() >= first);
    }
}
