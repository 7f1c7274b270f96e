//! How many requests the backend is asked to serve.

use std::time::Duration;

/// Paces requests to a rate, without bursts: whoever spends pushes the next one's time back. Times are on any clock that
/// never goes back.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Seconds that one request takes of the budget.
    price: f64,
    ready_at: Duration,
}

impl Budget {
    pub(crate) fn new(requests_per_second: f64) -> Self {
        Self { price: requests_per_second.recip(), ready_at: Duration::ZERO }
    }

    /// When the next request may be sent.
    pub(crate) fn ready_at(&self, now: Duration) -> Duration {
        self.ready_at.max(now)
    }

    /// Enters requests that are sent now.
    pub(crate) fn spend(&mut self, now: Duration, requests: f64) {
        self.ready_at = self.ready_at(now) + Duration::from_secs_f64(self.price * requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_paced_and_idle_time_earns_no_burst() {
        let mut budget = Budget::new(4.0);
        let start = Duration::from_secs(100);
        assert_eq!(budget.ready_at(start), start);
        budget.spend(start, 2.0);
        budget.spend(start, 2.0);
        assert_eq!(budget.ready_at(start), start + Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        budget.spend(later, 1.0);
        assert_eq!(budget.ready_at(later), later + Duration::from_millis(250));
    }
}
