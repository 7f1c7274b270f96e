//! The renewer of numberly/vault-db-injector 3.2.3: a pass over everything every five minutes, at 30 entries a second.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::world::{CHURN_PER_SECOND, TTL};

/// `vaultRateLimit`, entries per second in each half of a pass.
const RATE: f64 = 30.0;

/// `syncTTLSecond`, and the interval of the revoker's own pass.
const INTERVAL: f64 = 300.0;

#[derive(Debug)]
pub(super) struct Outcome {
    /// Credentials that died before their first renewal. Later ones get five days, so that they are safe.
    pub(super) expired: u64,
    pub(super) requests_per_entry_hour: f64,
}

pub(super) fn run(entries: usize, seconds: u64) -> Outcome {
    let mut random = StdRng::seed_from_u64(1);
    let entries = entries as f64;
    // All entries are read, then all are renewed, in no particular order.
    let half = entries / RATE;
    let period = INTERVAL.max(2.0 * half);
    let passes = seconds as f64 / period;
    let revoker_passes = seconds as f64 / INTERVAL.max(half);
    let requests = passes * (3.0 * entries + 1.0) + revoker_passes * (entries + 1.0);
    let new = (entries * CHURN_PER_SECOND * seconds as f64) as u64;
    let expired = (0..new).filter(|_| {
        let until_the_next_pass = random.random_range(0.0..period);
        until_the_next_pass + half + random.random_range(0.0..=half) > TTL.as_secs_f64()
    });
    Outcome {
        expired: expired.count() as u64,
        requests_per_entry_hour: requests / (entries * seconds as f64 / 3600.0),
    }
}
