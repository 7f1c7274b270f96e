//! One admission, from the review to the verdict.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, SourceError},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner},
    metrics::Registry,
    pod::{DEFAULT_SERVICE_ACCOUNT, PodRef},
    secret::Secret,
};

use crate::{
    metrics::{Metrics, Outcome},
    policy::{Grant, Injection, MutationPolicy, Plan},
    review::{Denial, Review, Verdict},
    undelivered::Undelivered,
};

/// What stands in for user and password in the answer to a dry run, which creates nothing.
const DRY_RUN: &str = "dry-run";

/// Turns reviews into verdicts. Clones share everything.
pub struct Admission<S, L, P> {
    source: Arc<S>,
    ledger: Arc<L>,
    policy: Arc<P>,
    owner: Owner,
    deadline: Duration,
    tracker: TaskTracker,
    metrics: Metrics,
}

impl<S, L, P> Clone for Admission<S, L, P> {
    fn clone(&self) -> Self {
        let Self { source, ledger, policy, owner, deadline, tracker, metrics } = self;
        Self {
            source: source.clone(),
            ledger: ledger.clone(),
            policy: policy.clone(),
            owner: owner.clone(),
            deadline: *deadline,
            tracker: tracker.clone(),
            metrics: metrics.clone(),
        }
    }
}

/// Why an admission came to nothing.
enum Failure {
    Source { database: String, error: SourceError },
    Ledger { database: String, error: LedgerError },
    Deadline,
    Internal(&'static str),
}

impl<S: CredentialSource, L: Ledger, P: MutationPolicy> Admission<S, L, P> {
    /// `owner` signs the ledger entries; `deadline` bounds each admission and belongs below the webhook's timeout.
    pub fn new(
        source: S,
        ledger: L,
        policy: P,
        owner: Owner,
        deadline: Duration,
        registry: &Registry,
    ) -> Self {
        Self {
            source: Arc::new(source),
            ledger: Arc::new(ledger),
            policy: Arc::new(policy),
            owner,
            deadline,
            tracker: TaskTracker::new(),
            metrics: Metrics::new(registry),
        }
    }

    /// Answers one review. When the returned future is dropped before it is ready, what it had issued is revoked.
    pub async fn admit(&self, review: &Review) -> Verdict {
        let arrival = Instant::now();
        let (verdict, outcome) = match &review.pod {
            None => (Verdict::leave_alone(Vec::new()), Outcome::Untouched),
            Some(pod) => self.decide(review, pod, arrival + self.deadline).await,
        };
        self.metrics.answered(outcome, arrival.elapsed());
        verdict
    }

    /// Waits for the revocations and issues that are still under way after the last answer. Call it once no more reviews
    /// come.
    pub async fn finish(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    async fn decide(&self, review: &Review, pod: &Value, deadline: Instant) -> (Verdict, Outcome) {
        let pod_ref = pod_ref(review, pod);
        let injection = match self.policy.plan(pod) {
            Ok(Plan::Inject(injection)) => injection,
            Ok(Plan::LeaveAlone { warnings }) => return (Verdict::leave_alone(warnings), Outcome::Untouched),
            Err(denial) => {
                tracing::warn!(pod = %pod_ref, reason = %denial, "denied pod {pod_ref}: {denial}");
                return (Verdict::Deny(denial), Outcome::BadRequest);
            }
        };
        if review.dry_run {
            let grants = vec![stand_in(); injection.databases.len()];
            let patch = self.policy.patch(pod, &injection, &grants);
            return (Verdict::Allow { patch, warnings: injection.warnings }, Outcome::DryRun);
        }
        match self.issue_all(&pod_ref, &injection, deadline).await {
            Ok(grants) => {
                let patch = self.policy.patch(pod, &injection, &grants);
                let ids: Vec<_> = grants.iter().map(|grant| grant.id.to_string()).collect();
                tracing::info!(
                    pod = %pod_ref, ids = ids.join(","), databases = grants.len(),
                    "gave pod {pod_ref} its credentials"
                );
                (Verdict::Allow { patch, warnings: injection.warnings }, Outcome::Injected)
            }
            Err(failure) => {
                let denial = failure.denial(self.deadline);
                tracing::warn!(pod = %pod_ref, reason = %denial, "denied pod {pod_ref}: {denial}");
                (Verdict::Deny(denial), failure.outcome())
            }
        }
    }

    async fn issue_all(
        &self,
        pod: &PodRef,
        injection: &Injection,
        deadline: Instant,
    ) -> Result<Vec<Grant>, Failure> {
        let requests: Vec<CredentialRequest> = injection
            .databases
            .iter()
            .map(|database| CredentialRequest {
                pod: pod.clone(),
                database: database.name.clone(),
                engine: database.engine.clone(),
                role: database.role.clone(),
            })
            .collect();
        let authorized = try_join_all(requests.iter().map(async |request| {
            self.source.authorize(request).await.map_err(|error| Failure::source(request, error))
        }));
        timeout_at(deadline, authorized).await.map_err(|_| Failure::Deadline)??;

        // Each issue runs in a task of its own to its very end, since a request for a credential that is given up
        // half-way may leave one that nobody knows. Whoever stops waiting drops the result, which revokes it.
        let issues = requests.into_iter().map(|request| {
            let issue = self.tracker.spawn(self.clone().issue(request));
            async { issue.await.unwrap_or(Err(Failure::Internal("an issuing task ended unexpectedly"))) }
        });
        let undelivered =
            timeout_at(deadline, try_join_all(issues)).await.map_err(|_| Failure::Deadline)??;
        let grants = undelivered.into_iter().filter_map(|undelivered| {
            let id = undelivered.id;
            let issued = undelivered.deliver()?;
            Some(Grant { id, username: issued.username, password: issued.password })
        });
        Ok(grants.collect())
    }

    /// Issues one credential and enters it into the ledger, before anybody sees it.
    async fn issue(self, request: CredentialRequest) -> Result<Undelivered<S>, Failure> {
        let id = EntryId::random();
        let issued = self.source.issue(&request).await.map_err(|error| Failure::source(&request, error))?;
        let entry = Entry {
            lease: issued.lease.clone(),
            owner: Some(self.owner),
            pod: request.pod,
            database: request.database.clone(),
            role: request.role,
            issued_at: Some(Timestamp::now()),
            raw_token: issued.token.clone(),
        };
        let undelivered = Undelivered::new(id, issued, self.source, self.tracker, self.metrics.clone());
        match self.ledger.record(id, &entry).await {
            Ok(()) => {
                self.metrics.stored.increment(1);
                Ok(undelivered)
            }
            Err(error) => {
                self.metrics.store_error.increment(1);
                Err(Failure::Ledger { database: request.database, error })
            }
        }
    }
}

impl Failure {
    fn source(request: &CredentialRequest, error: SourceError) -> Self {
        Self::Source { database: request.database.clone(), error }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Source { error, .. } => error.into(),
            Self::Ledger { .. } | Self::Internal(_) => Outcome::Ledger,
            Self::Deadline => Outcome::Deadline,
        }
    }

    fn denial(&self, deadline: Duration) -> Denial {
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
                    "database {database}: its credential could not be entered into the ledger and was revoked: {error}"
                ),
            },
            Self::Deadline => Denial {
                code: 500,
                message: format!(
                    "no credential within {deadline:?} (admissionTimeout): the secrets backend or the database is slow; \
                     what came too late is revoked, so create the pod again"
                ),
            },
            Self::Internal(message) => Denial { code: 500, message: (*message).to_owned() },
        }
    }
}

fn stand_in() -> Grant {
    Grant { id: EntryId::random(), username: DRY_RUN.into(), password: Secret::new(DRY_RUN) }
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
