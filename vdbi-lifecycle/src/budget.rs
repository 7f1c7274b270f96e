//! How many requests the backend is asked to serve.

use std::time::Duration;

/// An answer that takes longer is a sign of overload.
pub const SLOW: Duration = Duration::from_secs(2);

/// The fewest requests per second: recovery is noticed by asking.
const FLOOR: f64 = 1.0;

/// The fewest as a share of the most, where that is more.
const FLOOR_SHARE: f64 = 0.01;

/// How much is asked for after a sign of overload.
const BACK_OFF: f64 = 0.7;

/// Signs of overload within this time are one: they tell of requests that were sent together.
const ONE_SIGN: Duration = Duration::from_millis(500);

/// The time in which the rate grows e-fold while all is well.
const GROWTH: Duration = Duration::from_secs(10);

/// What one answer weighs in the share of bad ones.
const WEIGHT: f64 = 0.1;

/// The share of bad answers that is not taken for overload: one database of many that is down, an answer that was lost.
const TOLERATED: f64 = 0.15;

/// How late a timer may be. What is lost by it is made up for, idle time is not.
const LATE: Duration = Duration::from_millis(10);

/// Paces requests to a rate, without bursts: whoever spends pushes the next one's time back. The rate shrinks while the
/// backend fails or is slow, and grows back slowly. Times are on any clock that never goes back.
#[derive(Debug)]
pub struct Budget {
    ceiling: f64,
    rate: f64,
    ready_at: Duration,
    bad_share: f64,
    /// Up to when growth has been entered.
    grown: Duration,
    /// When the rate last shrank.
    shrunk: Duration,
}

impl Budget {
    /// Requests per second, at most.
    pub fn new(ceiling: f64) -> Self {
        let start = Duration::ZERO;
        Self { ceiling, rate: ceiling, ready_at: start, bad_share: 0.0, grown: start, shrunk: start }
    }

    /// When the next request may be sent.
    pub fn ready_at(&self, now: Duration) -> Duration {
        self.ready_at.max(now)
    }

    /// Enters so many requests that are sent from now on.
    pub fn spend(&mut self, now: Duration, requests: u32) {
        let late = now.saturating_sub(self.ready_at);
        let from = if late <= LATE { self.ready_at } else { now };
        self.ready_at = from + Duration::from_secs_f64(f64::from(requests) / self.rate);
    }

    /// Enters an answer; it is bad when the backend failed or was slow.
    pub fn answered(&mut self, now: Duration, bad: bool) {
        self.bad_share += WEIGHT * (f64::from(u8::from(bad)) - self.bad_share);
        if !bad {
            let growth = now.saturating_sub(self.grown).min(GROWTH).div_duration_f64(GROWTH).exp();
            self.rate = (self.rate * growth).min(self.ceiling);
            self.grown = now;
        } else if self.bad_share > TOLERATED && now.saturating_sub(self.shrunk) >= ONE_SIGN {
            self.rate = (self.rate * BACK_OFF).max(self.floor());
            (self.shrunk, self.grown) = (now, now);
        }
    }

    fn floor(&self) -> f64 {
        FLOOR.max(FLOOR_SHARE * self.ceiling).min(self.ceiling)
    }

    /// Requests per second at present.
    pub fn rate(&self) -> f64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests are sent and answered like this in so many seconds.
    fn run(budget: &mut Budget, from: u64, seconds: u64, bad: impl Fn(u64) -> bool) -> u64 {
        let (mut now, end) = (Duration::from_secs(from), Duration::from_secs(from + seconds));
        let mut sent = 0;
        while budget.ready_at(now) < end {
            now = budget.ready_at(now);
            budget.spend(now, 1);
            budget.answered(now, bad(sent));
            sent += 1;
        }
        sent
    }

    #[test]
    fn requests_are_paced_and_idle_time_earns_no_burst() {
        let mut budget = Budget::new(4.0);
        let start = Duration::from_secs(100);
        assert_eq!(budget.ready_at(start), start);
        budget.spend(start, 1);
        assert_eq!(budget.ready_at(start), start + Duration::from_millis(250));
        let later = start + Duration::from_secs(60);
        budget.spend(later, 3);
        assert_eq!(budget.ready_at(later), later + Duration::from_millis(750));
    }

    #[test]
    fn a_late_timer_costs_nothing() {
        let mut budget = Budget::new(1000.0);
        // Timers have whole milliseconds, and are late by one.
        let (mut now, mut sent) = (Duration::from_secs(1), 0);
        while now < Duration::from_secs(2) {
            while budget.ready_at(now) <= now {
                budget.spend(now, 3);
                sent += 3;
            }
            now += Duration::from_millis(4);
        }
        assert!((990..=1010).contains(&sent), "{sent}");
    }

    #[test]
    fn a_failing_backend_is_soon_left_almost_alone() {
        let mut budget = Budget::new(100.0);
        run(&mut budget, 0, 10, |_| true);
        let sent = run(&mut budget, 10, 60, |_| true);
        assert!(sent <= 70, "{sent} in a minute");
    }

    #[test]
    fn recovery_is_noticed_and_does_not_stampede() {
        let mut budget = Budget::new(100.0);
        run(&mut budget, 0, 60, |_| true);
        let first = run(&mut budget, 60, 10, |_| false);
        assert!(first <= 40, "{first} in the first ten seconds");
        run(&mut budget, 70, 60, |_| false);
        assert!((budget.rate() - 100.0).abs() < 1e-6, "{}", budget.rate());
    }

    #[test]
    fn a_small_share_of_failures_does_not_slow_the_others() {
        let mut budget = Budget::new(100.0);
        let sent = run(&mut budget, 0, 60, |request| request % 20 == 0);
        assert!(sent > 5_500, "{sent}");
    }

    #[test]
    fn a_quota_is_found_and_kept_to() {
        // Every request beyond 50 per second is refused, as a rate limit quota does.
        let mut budget = Budget::new(200.0);
        let (mut now, mut second, mut within, mut refused) = (Duration::ZERO, 0, 0, 0);
        while now < Duration::from_secs(120) {
            now = budget.ready_at(now);
            budget.spend(now, 1);
            if now.as_secs() != second {
                (second, within) = (now.as_secs(), 0);
            }
            within += 1;
            let bad = within > 50;
            refused += u32::from(bad && second >= 20);
            budget.answered(now, bad);
        }
        assert!(refused < 100 * 25, "{refused} refused in 100 s");
        assert!(budget.rate() > 25.0, "{}", budget.rate());
    }
}
