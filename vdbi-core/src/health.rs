//! Whether a process works and whether it is of use: named checks behind two probes.
//!
//! A check is a state that somebody keeps up to date, or a function that reads one. Asking performs no I/O, so that a probe is
//! answered within its second whatever the network does. The names and their probes are those of Kubernetes' own
//! components; `admin` (feature `admin`) serves them.
//!
//! ```
//! use vdbi_core::health::{Health, Probe};
//!
//! let health = Health::new();
//! let listener = health.register("listener", Probe::Ready);
//! assert!(!health.report(Probe::Ready, &[]).passed());
//! listener.pass();
//! assert!(health.report(Probe::Ready, &[]).passed());
//! assert!(health.report(Probe::Live, &[]).passed());
//! ```

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::clock::Clock;

/// How often [`Health::heartbeat`] beats.
const BEAT: Duration = Duration::from_secs(1);

/// How long after the last beat `runtime-heartbeat` passes.
const SILENCE: Duration = Duration::from_secs(30);

/// What a check is for: the probes that the kubelet knows but the startup probe, for which `Ready` serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// Whether a restart would help. Never let it depend on Vault or Kubernetes: an outage there would restart every replica.
    Live,
    /// Whether this replica can do its part now. Never let it depend on leadership: a rollout would wait for ever.
    Ready,
}

/// The [detail](Health::describe) of a service that is asked for something: `status` (`unknown`, `ok` or `failed`) and `message`, by what
/// came of it last.
pub fn detail(reached: Option<&Result<(), String>>) -> Value {
    let (status, message) = match reached {
        None => ("unknown", ""),
        Some(Ok(())) => ("ok", ""),
        Some(Err(reason)) => ("failed", reason.as_str()),
    };
    json!({ "status": status, "message": message })
}

/// The checks of a process. Clones share them.
///
/// `ping` (live) and `shutdown` (ready) are registered from the start. A name that is registered again for the same probe
/// replaces the earlier check, whose handle then does nothing.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    shutting_down: Arc<AtomicBool>,
    checks: Mutex<Vec<Registered>>,
    details: Mutex<Vec<Detail>>,
}

#[derive(Clone)]
struct Detail {
    name: &'static str,
    tell: Arc<dyn Fn() -> Value + Send + Sync>,
}

#[derive(Clone)]
struct Registered {
    name: &'static str,
    probe: Probe,
    check: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// One check's state, for whoever keeps it up to date.
#[derive(Clone, Debug)]
pub struct Check(Arc<Mutex<Result<(), String>>>);

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The probe that was asked.
    pub probe: Probe,
    /// Its checks, in the order in which they were registered.
    pub checks: Vec<Outcome>,
    /// The names to exclude that no check has.
    pub unmatched: Vec<String>,
    /// What [`Health::describe`] added, for people: no check.
    pub details: Vec<(&'static str, Value)>,
}

/// What one check said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The check's name.
    pub name: &'static str,
    /// What it said.
    pub state: State,
}

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Passed,
    /// The reason; without secrets, but not for everybody's eyes either.
    Failed(String),
    /// The caller did not want to know.
    Excluded,
}

impl Health {
    /// The checks of a process that has none of its own yet.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(ProcessClock(Instant::now())))
    }

    /// With the clock by which heartbeats are judged.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let shutting_down = Arc::new(AtomicBool::new(false));
        let health = Self(Arc::new(Shared {
            clock,
            shutting_down: Arc::clone(&shutting_down),
            checks: Mutex::default(),
            details: Mutex::default(),
        }));
        health.register_with("ping", Probe::Live, || Ok(()));
        health.register_with("shutdown", Probe::Ready, move || {
            if shutting_down.load(Ordering::Acquire) { Err("shutting down".to_owned()) } else { Ok(()) }
        });
        health
    }

    /// Adds a check that fails ("not yet") until [`Check::pass`].
    pub fn register(&self, name: &'static str, probe: Probe) -> Check {
        let check = Check(Arc::new(Mutex::new(Err("not yet".to_owned()))));
        let state = check.clone();
        self.register_with(name, probe, move || locked(&state.0).clone());
        check
    }

    /// Adds a check that is computed when somebody asks. It must neither block nor perform I/O; its error is the reason, without
    /// secrets.
    pub fn register_with(
        &self,
        name: &'static str,
        probe: Probe,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let registered = Registered { name, probe, check: Arc::new(check) };
        let mut checks = locked(&self.0.checks);
        match checks.iter_mut().find(|earlier| earlier.name == name && earlier.probe == probe) {
            Some(earlier) => *earlier = registered,
            None => checks.push(registered),
        }
    }

    /// Adds an object to the JSON of both probes, which changes neither: what a person wants to see beside the checks. It must
    /// neither block nor perform I/O, and tell no secrets. A name that is described again replaces the earlier object.
    pub fn describe(&self, name: &'static str, tell: impl Fn() -> Value + Send + Sync + 'static) {
        let detail = Detail { name, tell: Arc::new(tell) };
        let mut details = locked(&self.0.details);
        match details.iter_mut().find(|earlier| earlier.name == name) {
            Some(earlier) => *earlier = detail,
            None => details.push(detail),
        }
    }

    /// Registers the live check `runtime-heartbeat` and returns what keeps it passing: a future that beats each second on the
    /// runtime it is polled on, and never ends. The check fails 30 seconds after the last beat: the runtime is stuck, or the
    /// future was dropped.
    pub fn heartbeat(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let clock = Arc::clone(&self.0.clock);
        let last = Arc::new(AtomicU64::new(milliseconds(clock.now())));
        {
            let (clock, last) = (Arc::clone(&clock), Arc::clone(&last));
            self.register_with("runtime-heartbeat", Probe::Live, move || {
                let last = Duration::from_millis(last.load(Ordering::Acquire));
                let silence = clock.now().saturating_sub(last);
                if silence < SILENCE {
                    return Ok(());
                }
                Err(format!("the runtime has been stuck for {} s", silence.as_secs()))
            });
        }
        async move {
            loop {
                last.store(milliseconds(clock.now()), Ordering::Release);
                tokio::time::sleep(BEAT).await;
            }
        }
    }

    /// Fails the ready check `shutdown` from now on, so that nothing new is sent here.
    pub fn shutting_down(&self) {
        self.0.shutting_down.store(true, Ordering::Release);
    }

    /// Asks every check of a probe but those to exclude.
    pub fn report(&self, probe: Probe, exclude: &[String]) -> Report {
        let checks = self.of(probe);
        let unmatched =
            exclude.iter().filter(|name| !checks.iter().any(|check| check.name == **name)).cloned().collect();
        let checks = checks
            .iter()
            .map(|check| {
                let excluded = exclude.iter().any(|name| name == check.name);
                if excluded { Outcome { name: check.name, state: State::Excluded } } else { check.ask() }
            })
            .collect();
        let details = locked(&self.0.details).clone();
        let details = details.iter().map(|detail| (detail.name, (detail.tell)())).collect();
        Report { probe, checks, unmatched, details }
    }

    /// Asks one check of a probe; `None` when the probe has none of this name.
    pub fn report_one(&self, probe: Probe, name: &str) -> Option<Report> {
        let checks = self.of(probe);
        let check = checks.iter().find(|check| check.name == name)?;
        Some(Report { probe, checks: vec![check.ask()], unmatched: Vec::new(), details: Vec::new() })
    }

    /// A copy, so that no check runs under the lock.
    fn of(&self, probe: Probe) -> Vec<Registered> {
        locked(&self.0.checks).iter().filter(|check| check.probe == probe).cloned().collect()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = locked(&self.0.checks);
        f.debug_map().entries(checks.iter().map(|check| (check.name, check.probe))).finish()
    }
}

impl Registered {
    fn ask(&self) -> Outcome {
        let state = match (self.check)() {
            Ok(()) => State::Passed,
            Err(reason) => State::Failed(reason),
        };
        Outcome { name: self.name, state }
    }
}

impl Check {
    /// All is well from now on.
    pub fn pass(&self) {
        *locked(&self.0) = Ok(());
    }

    /// Something is wrong from now on. The message says what, without secrets.
    pub fn fail(&self, message: impl Into<String>) {
        *locked(&self.0) = Err(message.into());
    }
}

impl Report {
    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.state, State::Failed(_)))
    }
}

/// Works without a runtime, unlike tokio's.
#[derive(Debug)]
struct ProcessClock(Instant);

impl Clock for ProcessClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is behind these locks is written in one step, so that a panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::TokioClock;

    fn failures(health: &Health, probe: Probe) -> Vec<(&'static str, String)> {
        let report = health.report(probe, &[]);
        report
            .checks
            .into_iter()
            .filter_map(|check| match check.state {
                State::Failed(reason) => Some((check.name, reason)),
                State::Passed | State::Excluded => None,
            })
            .collect()
    }

    #[test]
    fn a_process_without_checks_of_its_own_is_live_and_ready() {
        let health = Health::new();
        assert!(health.report(Probe::Live, &[]).passed());
        assert!(health.report(Probe::Ready, &[]).passed());
        assert!(health.report_one(Probe::Live, "ping").is_some());
        assert!(health.report_one(Probe::Ready, "ping").is_none());
    }

    #[test]
    fn a_check_fails_until_it_passes() {
        let health = Health::new();
        let check = health.register("listener", Probe::Ready);
        assert_eq!(failures(&health, Probe::Ready), [("listener", "not yet".to_owned())]);
        check.pass();
        assert!(health.report(Probe::Ready, &[]).passed());
        check.fail("closed");
        assert_eq!(failures(&health, Probe::Ready), [("listener", "closed".to_owned())]);
        assert!(health.report(Probe::Live, &[]).passed());
    }

    #[test]
    fn a_computed_check_is_computed_each_time() {
        let health = Health::new();
        let count = AtomicU64::new(0);
        health.register_with("vault-login", Probe::Ready, move || {
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err("logged out".to_owned()),
            }
        });
        assert!(health.report(Probe::Ready, &[]).passed());
        assert!(!health.report(Probe::Ready, &[]).passed());
    }

    #[test]
    fn an_excluded_check_is_not_asked() {
        let health = Health::new();
        health.register_with("broken", Probe::Live, || panic!("asked"));
        let report = health.report(Probe::Live, &["broken".to_owned(), "unknown".to_owned()]);
        assert!(report.passed());
        assert_eq!(report.checks[1], Outcome { name: "broken", state: State::Excluded });
        assert_eq!(report.unmatched, ["unknown"]);
    }

    #[test]
    fn one_name_serves_both_probes_and_a_second_registration_replaces_the_first() {
        let health = Health::new();
        let live = health.register("leader-election", Probe::Live);
        let first = health.register("leader-election", Probe::Ready);
        let second = health.register("leader-election", Probe::Ready);
        live.pass();
        first.pass();
        assert_eq!(failures(&health, Probe::Ready).len(), 1);
        second.pass();
        assert!(failures(&health, Probe::Ready).is_empty());
        assert!(failures(&health, Probe::Live).is_empty());
    }

    #[test]
    fn readiness_ends_with_the_shutdown_and_liveness_does_not() {
        let health = Health::new();
        health.shutting_down();
        assert_eq!(failures(&health, Probe::Ready), [("shutdown", "shutting down".to_owned())]);
        assert!(health.report(Probe::Live, &[]).passed());
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_fails_half_a_minute_after_the_last_beat() {
        let health = Health::with_clock(Arc::new(TokioClock::new()));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(health.heartbeat());
        tokio::time::sleep(Duration::from_millis(90_500)).await;
        assert!(health.report(Probe::Live, &[]).passed());

        tasks.shutdown().await;
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(health.report(Probe::Live, &[]).passed());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            failures(&health, Probe::Live),
            [("runtime-heartbeat", "the runtime has been stuck for 30 s".to_owned())]
        );
    }

    #[test]
    fn a_detail_is_told_with_both_probes_and_fails_none() {
        let health = Health::new();
        health.describe("vault", || json!({"status": "failed"}));
        health.describe("leader", || json!({"holder": "a"}));
        health.describe("leader", || json!({"holder": "b"}));
        for probe in [Probe::Live, Probe::Ready] {
            let report = health.report(probe, &[]);
            assert!(report.passed());
            let details = [("vault", json!({"status": "failed"})), ("leader", json!({"holder": "b"}))];
            assert_eq!(report.details, details);
        }
    }

    #[test]
    fn debug_names_the_checks() {
        assert_eq!(format!("{:?}", Health::new()), r#"{"ping": Live, "shutdown": Ready}"#);
    }
}
