//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

const SHORTEST: Duration = Duration::from_millis(100);

/// Looking for a socket costs nothing, and a node without its plugin starts pods without it, or none.
const LONGEST: Duration = Duration::from_secs(2);

/// Doubles from attempt to attempt, up to a limit, and never ends.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: SHORTEST }
    }

    /// Starts over.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// The next wait: a random one between the half and the whole of what it would be, so that plugins that were disconnected together
    /// do not come back together.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new();
        for round in 0..100 {
            let whole = (SHORTEST * 2_u32.pow(round.min(10))).min(LONGEST);
            let wait = backoff.wait();
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= SHORTEST);
    }
}
