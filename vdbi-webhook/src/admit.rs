//! One admission, from the review to the verdict.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, SourceError},
    custody::{Custody, IssueError, Undelivered},
    ledger::{EntryId, Ledger, LedgerError, Owner},
    metrics::Registry,
    placeholder::Placeholder,
    pod::{DEFAULT_SERVICE_ACCOUNT, PodRef},
    secret::Secret,
};

use crate::{
    metrics::{Metrics, Outcome},
    policy::{Grant, Injection, MutationPolicy, Plan},
    queue::Queue,
    review::{Answer, Denial, Review, Verdict},
};

/// The share of the API server's patience that an admission uses, so that its denial arrives before the API server gives up.
const SHARE_OF_TIMEOUT: f64 = 0.8;

/// What stands in for user and password in the answer to a dry run, which creates nothing.
const DRY_RUN: &str = "dry-run";

/// Turns reviews into verdicts. Clones share everything.
pub struct Admission<S, L, P> {
    custody: Custody<S, L>,
    policy: Arc<P>,
    limits: Limits,
    queue: Arc<Queue>,
    metrics: Metrics,
}

/// What an admission may take: made by `Limits::default()`, and changed field by field.
///
/// ```
/// # use std::time::Duration;
/// use vdbi_webhook::admit::Limits;
///
/// let mut limits = Limits::default();
/// limits.deadline = Duration::from_secs(5);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// How long it may last, at most; 80 % of the API server's own timeout where that is less. By default 4 s.
    pub deadline: Duration,
    /// How many may be under way at once; the others wait. By default 256.
    pub max_in_flight: usize,
    /// How many may wait at once; the others are denied at once. By default 512.
    pub max_queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(4), max_in_flight: 256, max_queued: 512 }
    }
}

impl<S, L, P> Clone for Admission<S, L, P> {
    fn clone(&self) -> Self {
        let Self { custody, policy, limits, queue, metrics } = self;
        Self {
            custody: custody.clone(),
            policy: policy.clone(),
            limits: *limits,
            queue: queue.clone(),
            metrics: metrics.clone(),
        }
    }
}

/// Why an admission came to nothing.
enum Failure {
    Source { database: String, error: SourceError },
    Ledger { database: String, error: LedgerError },
    Deadline(Duration),
    QueueFull,
    Internal(String),
}

/// Counts an admission once, also when its future is dropped.
struct Counting<'a> {
    metrics: &'a Metrics,
    arrival: Instant,
    outcome: Outcome,
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.metrics.answered(self.outcome, self.arrival.elapsed());
    }
}

/// When an admission has to be over, and how long that was from its arrival.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    after: Duration,
}

impl Deadline {
    async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.at, work).await.map_err(|_| Failure::Deadline(self.after))
    }
}

impl<S: CredentialSource, L: Ledger, P: MutationPolicy> Admission<S, L, P> {
    /// `owner` signs the ledger entries.
    pub fn new(source: S, ledger: L, policy: P, owner: Owner, limits: Limits, registry: &Registry) -> Self {
        let metrics = Metrics::new(registry);
        let (in_flight, queued) = (metrics.in_flight.clone(), metrics.queued.clone());
        Self {
            custody: Custody::new(source, ledger, owner, registry),
            policy: Arc::new(policy),
            limits,
            queue: Arc::new(Queue::new(limits.max_in_flight, limits.max_queued, in_flight, queued)),
            metrics,
        }
    }

    /// Answers one review. When the returned future is dropped before it is ready, what it had issued is revoked.
    pub async fn admit(&self, review: &Review) -> Answer {
        let arrival = Instant::now();
        let mut counting = Counting { metrics: &self.metrics, arrival, outcome: Outcome::Abandoned };
        let patience = review.timeout.map_or(Duration::MAX, |timeout| timeout.mul_f64(SHARE_OF_TIMEOUT));
        let after = self.limits.deadline.min(patience);
        let answer = match &review.pod {
            None => Answer::untouched(Verdict::leave_alone()),
            Some(pod) => self.decide(review, pod, Deadline { at: arrival + after, after }).await,
        };
        counting.outcome = answer.outcome;
        answer
    }

    /// Counts a request that was no review.
    pub(crate) fn malformed(&self) {
        self.metrics.answered(Outcome::Malformed, Duration::ZERO);
    }

    /// Waits for the revocations and issues that are still under way after the last answer. Call it once no more reviews
    /// come.
    pub async fn finish(&self) {
        self.custody.finish().await;
    }

    async fn decide(&self, review: &Review, pod: &Value, deadline: Deadline) -> Answer {
        let pod_ref = pod_ref(review, pod);
        let now = Timestamp::now();
        let (injection, outcome) = match self.policy.plan(pod, now) {
            Ok(Plan::Issue(injection)) => (injection, Outcome::Injected),
            Ok(Plan::Reserve(injection)) => (injection, Outcome::Reserved),
            Ok(Plan::LeaveAlone { patch, warnings }) => {
                return Answer::untouched(Verdict::Allow { patch, warnings });
            }
            Err(denial) => return denied(&pod_ref, denial, Outcome::BadRequest),
        };
        let Injection { databases, warnings } = &injection;
        let (mut warnings, databases) = (warnings.clone(), databases.len());
        if review.dry_run {
            let grants = vec![stand_in(); databases];
            let patch = self.policy.patch(pod, &injection, &grants, now);
            let verdict = Verdict::Allow { patch, warnings };
            return Answer { verdict, outcome: Outcome::DryRun, entries: Vec::new() };
        }
        let grants = async {
            let _turn = deadline.bound(self.queue.enter()).await?.map_err(|_| Failure::QueueFull)?;
            let requests = requests(&pod_ref, &injection);
            self.authorize_all(&requests, deadline).await?;
            match outcome {
                Outcome::Reserved => Ok(std::iter::repeat_with(placeholder_pair).take(databases).collect()),
                _ => self.issue_all(requests, &mut warnings, deadline).await,
            }
        };
        let grants: Vec<Grant> = match grants.await {
            Ok(grants) => grants,
            Err(failure) => return denied(&pod_ref, failure.denial(), failure.outcome()),
        };
        let patch = self.policy.patch(pod, &injection, &grants, now);
        let entries: Vec<EntryId> = grants.iter().map(|grant| grant.id).collect();
        let ids: Vec<String> = entries.iter().map(EntryId::to_string).collect();
        let what = if outcome == Outcome::Reserved { "placeholders" } else { "its credentials" };
        tracing::info!(pod = %pod_ref, ids = ids.join(","), databases, "gave pod {pod_ref} {what}");
        Answer { verdict: Verdict::Allow { patch, warnings }, outcome, entries }
    }

    async fn authorize_all(&self, requests: &[CredentialRequest], deadline: Deadline) -> Result<(), Failure> {
        let authorized = try_join_all(requests.iter().map(async |request| {
            self.custody.source().authorize(request).await.map_err(|error| Failure::source(request, error))
        }));
        deadline.bound(authorized).await?.map(drop)
    }

    async fn issue_all(
        &self,
        requests: Vec<CredentialRequest>,
        warnings: &mut Vec<String>,
        deadline: Deadline,
    ) -> Result<Vec<Grant>, Failure> {
        let issues = requests.into_iter().map(async |request| {
            let database = request.database.clone();
            self.custody
                .issue(EntryId::random(), request)
                .await
                .map_err(|error| Failure::issue(database, error))
        });
        let undelivered: Vec<Undelivered<S>> = deadline.bound(try_join_all(issues)).await??;
        let mut grants = Vec::new();
        for undelivered in undelivered {
            let id = undelivered.id();
            let Some(issued) = undelivered.deliver() else { continue };
            warnings.extend(issued.warnings);
            grants.push(Grant::new(id, issued.username, issued.password));
        }
        Ok(grants)
    }
}

impl Failure {
    fn source(request: &CredentialRequest, error: SourceError) -> Self {
        Self::Source { database: request.database.clone(), error }
    }

    fn issue(database: String, error: IssueError) -> Self {
        match error {
            IssueError::Source(error) => Self::Source { database, error },
            IssueError::Ledger(error) => Self::Ledger { database, error },
            _ => Self::Internal(error.to_string()),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Source { error, .. } => error.into(),
            Self::Ledger { .. } | Self::Internal(_) => Outcome::Ledger,
            Self::Deadline(_) => Outcome::Deadline,
            Self::QueueFull => Outcome::QueueFull,
        }
    }

    fn denial(&self) -> Denial {
        match self {
            Self::Source { database, error } => Denial {
                code: match error {
                    SourceError::Denied(_) => 403,
                    SourceError::Invalid(_) => 400,
                    _ => 500,
                },
                message: format!("database {database}: {error}"),
            },
            Self::Ledger { database, error } => Denial {
                code: 500,
                message: format!(
                    "database {database}: its credential could not be entered into the ledger and is revoked: {error}"
                ),
            },
            Self::QueueFull => Denial {
                code: 429,
                message: "too many pods are being created at once (webhook.maxInFlight, webhook.maxQueued): create the pod \
                          again in a moment"
                    .to_owned(),
            },
            Self::Deadline(deadline) => Denial {
                code: 500,
                message: format!(
                    "no credential within {deadline:?} (admissionTimeout): the secrets backend or the database is slow; \
                     what came too late is revoked, so create the pod again"
                ),
            },
            Self::Internal(message) => Denial { code: 500, message: message.clone() },
        }
    }
}

impl Answer {
    fn untouched(verdict: Verdict) -> Self {
        Self { verdict, outcome: Outcome::Untouched, entries: Vec::new() }
    }
}

fn denied(pod: &PodRef, denial: Denial, outcome: Outcome) -> Answer {
    tracing::warn!(pod = %pod, reason = %denial, "denied pod {pod}: {denial}");
    Answer { verdict: Verdict::Deny(denial), outcome, entries: Vec::new() }
}

fn requests(pod: &PodRef, injection: &Injection) -> Vec<CredentialRequest> {
    let databases = injection.databases.iter();
    databases
        .map(|database| CredentialRequest {
            pod: pod.clone(),
            database: database.name.clone(),
            engine: database.engine.clone(),
            role: database.role.clone(),
        })
        .collect()
}

fn stand_in() -> Grant {
    Grant { id: EntryId::random(), username: DRY_RUN.into(), password: Secret::new(DRY_RUN) }
}

fn placeholder_pair() -> Grant {
    let password = Secret::new(Placeholder::random().to_string());
    Grant { id: EntryId::random(), username: Placeholder::random().to_string(), password }
}

fn pod_ref(review: &Review, pod: &Value) -> PodRef {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    PodRef {
        namespace: review.namespace.clone(),
        name: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        service_account: text(&pod["spec"]["serviceAccountName"])
            .unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
        node: text(&pod["spec"]["nodeName"]),
    }
}
