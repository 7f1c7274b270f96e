//! How long everything may take.

use std::time::Duration;

use vdbi_core::leadership::LeadershipError;

use super::Identity;

/// Which Lease (`coordination.k8s.io/v1`) is competed for.
///
/// It is written as a literal, on purpose: a constructor would take two texts that could be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name; each name is an election of its own.
    pub name: String,
}

/// An election's settings: made by [`Settings::new`], and changed field by field. The tolerated ratio between two replicas' clock rates is
/// `lease_duration / hard_deadline`.
///
/// ```
/// # use std::time::Duration;
/// use vdbi_lifecycle::election::{Identity, LeaseRef, Settings};
///
/// let lease = LeaseRef { namespace: "my-namespace".into(), name: "my-operator".into() };
/// let mut settings = Settings::new(lease, Identity::new("my-operator-0"));
/// settings.drain_timeout = Duration::from_secs(5);
/// settings.validate()?;
/// # Ok::<(), vdbi_core::leadership::LeadershipError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The Lease's name; each name is an election of its own.
    pub lease_name: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// Who competes.
    pub identity: Identity,
    /// What its winner does, for the metrics' label `mode`: by default the lease's name.
    pub mode: String,
    /// How long followers let a Lease that does not change stand: whole seconds, 15 s.
    pub lease_duration: Duration,
    /// When a term is over unless it was renewed, counted from sending the last acknowledged write: 10 s.
    pub hard_deadline: Duration,
    /// When the process has to end if the work has still not stopped, counted from the same moment: 13 s.
    pub abort_after: Duration,
    /// From one renewal to the next: 3 s.
    pub renew_interval: Duration,
    /// From a request that failed to the next, +- 20 %: 1 s.
    pub retry: Duration,
    /// The longest that one request may take: 3 s.
    pub request_timeout: Duration,
    /// How long the work may take to return after a shutdown, while the lease is still renewed: 20 s.
    pub drain_timeout: Duration,
}

impl Settings {
    /// The defaults, which the fields tell.
    pub fn new(lease: LeaseRef, identity: Identity) -> Self {
        let LeaseRef { namespace, name } = lease;
        Self {
            mode: name.clone(),
            lease_name: name,
            namespace,
            identity,
            lease_duration: Duration::from_secs(15),
            hard_deadline: Duration::from_secs(10),
            abort_after: Duration::from_secs(13),
            renew_interval: Duration::from_secs(3),
            retry: Duration::from_secs(1),
            request_timeout: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(20),
        }
    }

    /// Another lease duration, and everything else in proportion except for the drain timeout.
    pub fn scaled_to(self, lease_duration: Duration) -> Self {
        let factor = lease_duration.as_secs_f64() / self.lease_duration.as_secs_f64().max(f64::EPSILON);
        Self {
            lease_duration,
            hard_deadline: self.hard_deadline.mul_f64(factor),
            abort_after: self.abort_after.mul_f64(factor),
            renew_interval: self.renew_interval.mul_f64(factor),
            retry: self.retry.mul_f64(factor),
            request_timeout: self.request_timeout.mul_f64(factor),
            ..self
        }
    }

    /// Whether they fit together.
    ///
    /// # Errors
    ///
    /// [`LeadershipError::Misconfigured`] says which do not.
    pub fn validate(&self) -> Result<(), LeadershipError> {
        let Self {
            lease_name,
            namespace,
            identity: _,
            mode: _,
            lease_duration,
            hard_deadline,
            abort_after,
            renew_interval,
            retry,
            request_timeout,
            drain_timeout: _,
        } = self;
        let misconfigured = |reason: String| Err(LeadershipError::Misconfigured(reason));
        if lease_name.is_empty() || namespace.is_empty() {
            return misconfigured("the lease's name and namespace must not be empty".into());
        }
        if lease_duration.is_zero()
            || lease_duration.subsec_nanos() != 0
            || i32_seconds(*lease_duration).is_none()
        {
            return misconfigured(format!("the lease duration {lease_duration:?} must be whole seconds"));
        }
        if renew_interval.is_zero() || retry.is_zero() || request_timeout.is_zero() {
            return misconfigured("renew interval, retry and request timeout must not be zero".into());
        }
        // Each of them is below the lease duration from here on, so that no sum overflows.
        if [hard_deadline, abort_after, renew_interval, retry, request_timeout]
            .iter()
            .any(|time| *time >= lease_duration)
        {
            return misconfigured(format!("every time must be below the lease duration {lease_duration:?}"));
        }
        if *renew_interval + *request_timeout + *retry >= *hard_deadline {
            return misconfigured(format!(
                "renew interval {renew_interval:?}, request timeout {request_timeout:?} and retry {retry:?} together \
                 must be below the hard deadline {hard_deadline:?}"
            ));
        }
        if hard_deadline >= abort_after {
            return misconfigured(format!(
                "the hard deadline {hard_deadline:?} must be below the time to abort {abort_after:?}"
            ));
        }
        if abort_after.mul_f64(1.1) > *lease_duration {
            return misconfigured(format!(
                "the time to abort {abort_after:?} must leave a tenth to the lease duration {lease_duration:?}"
            ));
        }
        Ok(())
    }

    /// What the Lease says.
    pub(crate) fn lease_seconds(&self) -> i32 {
        i32_seconds(self.lease_duration).unwrap_or(i32::MAX)
    }

    /// How long work may linger after its term before it is dropped.
    pub(crate) fn grace(&self) -> Duration {
        self.abort_after.saturating_sub(self.hard_deadline) / 4
    }
}

fn i32_seconds(time: Duration) -> Option<i32> {
    i32::try_from(time.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(
            LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
            Identity::new("a").with_uid("1"),
        )
    }

    #[test]
    fn the_defaults_fit_together_at_every_scale() {
        assert!(settings().validate().is_ok());
        for seconds in [1, 2, 7, 60] {
            let scaled = settings().scaled_to(Duration::from_secs(seconds));
            assert!(scaled.validate().is_ok(), "{seconds}");
            assert_eq!(scaled.drain_timeout, Duration::from_secs(20));
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let seconds = Duration::from_secs;
        let defaults = settings();
        for wrong in [
            Settings { lease_name: String::new(), ..defaults.clone() },
            Settings { namespace: String::new(), ..defaults.clone() },
            Settings { lease_duration: Duration::from_millis(15_500), ..defaults.clone() },
            Settings { lease_duration: seconds(0), ..defaults.clone() },
            Settings { lease_duration: seconds(14), ..defaults.clone() },
            Settings { renew_interval: seconds(6), ..defaults.clone() },
            Settings { renew_interval: Duration::MAX, ..defaults.clone() },
            Settings { retry: seconds(0), ..defaults.clone() },
            Settings { hard_deadline: seconds(13), ..defaults.clone() },
            Settings { abort_after: seconds(14), ..defaults.clone() },
        ] {
            assert!(wrong.validate().is_err(), "{wrong:?}");
        }
    }
}
