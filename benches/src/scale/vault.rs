//! A Vault with one processor.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use vdbi_lifecycle::renewer::plan::Step;

/// Network and storage.
const LATENCY: Duration = Duration::from_millis(5);

/// One request of this many fails without a reason.
const FAILURE: f64 = 0.002;

/// When it is sealed.
const OUTAGE: std::ops::Range<Duration> =
    Duration::from_secs(12 * 3600)..Duration::from_secs(12 * 3600 + 600);

#[derive(Debug, Default)]
pub(super) struct Vault {
    /// When its processor has done all that was asked up to now.
    free_at: Duration,
}

impl Vault {
    /// When a request that is sent now takes effect, and whether it does. The answer arrives then.
    pub(super) fn serve(&mut self, now: Duration, step: Step, random: &mut StdRng) -> (Duration, bool) {
        if OUTAGE.contains(&now) {
            return (now + LATENCY, false);
        }
        let cost = match step {
            Step::Read => Duration::from_micros(300),
            Step::Lease | Step::Token => Duration::from_millis(1),
        };
        self.free_at = self.free_at.max(now) + cost;
        (self.free_at + LATENCY, !random.random_bool(FAILURE))
    }
}
