//! A series for each credential, for those who ask for that: as many as there are entries, and none of what has left the ledger.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use vdbi_core::{
    ledger::EntryId,
    metrics::{Collect, Definition, Kind, Sample},
};

use super::Step;
use crate::shard::Shard;

const LEASE_RENEWED: Definition = counter(
    "vdbi_renew_lease_count_success",
    &["uuid", "namespace"],
    "Renewals of the lease, by ledger entry and the pod's namespace.",
);

const LEASE_ERROR: Definition = counter(
    "vdbi_renew_lease_count_error",
    &["uuid", "namespace", "reason"],
    "Renewals of the lease that failed, by ledger entry, the pod's namespace and reason.",
);

const TOKEN_RENEWED: Definition = counter(
    "vdbi_renew_token_count_success",
    &["uuid", "namespace"],
    "Renewals of the token, by ledger entry and the pod's namespace.",
);

const TOKEN_ERROR: Definition = counter(
    "vdbi_renew_token_count_error",
    &["uuid", "namespace", "reason"],
    "Renewals of the token that failed, by ledger entry, the pod's namespace and reason.",
);

const LEASE_EXPIRATION: Definition = expiration(
    "vdbi_lease_expiration",
    "When the lease ends without another renewal, in seconds since 1970, by ledger entry and the pod's namespace.",
);

const TOKEN_EXPIRATION: Definition = expiration(
    "vdbi_token_expiration",
    "When the token ends without another renewal, in seconds since 1970, by ledger entry and the pod's namespace.",
);

/// What the page has with `metrics.perPod`; the first four take the place of the metrics of these names without the label uuid.
pub const ALL: &[Definition] =
    &[LEASE_RENEWED, LEASE_ERROR, TOKEN_RENEWED, TOKEN_ERROR, LEASE_EXPIRATION, TOKEN_EXPIRATION];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Definition {
    Definition { name, kind: Kind::Counter, unit: None, labels, help }
}

const fn expiration(name: &'static str, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Gauge, unit: None, labels: &["uuid", "namespace"], help }
}

/// Kept up to date by the renewer, read at each scrape.
#[derive(Debug, Default)]
pub(super) struct PerPod(Mutex<HashMap<EntryId, Credential>>);

/// The series of a term's entries are there while this exists.
#[derive(Debug)]
pub(crate) struct Series(Arc<PerPod>, Shard);

#[derive(Debug, Default)]
struct Credential {
    namespace: String,
    lease: Renewals,
    token: Renewals,
}

#[derive(Debug, Default)]
struct Renewals {
    succeeded: u64,
    failed: BTreeMap<&'static str, u64>,
    expires: Option<SystemTime>,
}

impl PerPod {
    pub(super) fn renewed(&self, id: EntryId, step: Step, namespace: &str, ttl: Option<Duration>) {
        self.with(id, step, namespace, |renewals| {
            renewals.succeeded += 1;
            renewals.expires = ttl.map(|ttl| SystemTime::now() + ttl);
        });
    }

    pub(super) fn failed(&self, id: EntryId, step: Step, namespace: &str, reason: &'static str) {
        self.with(id, step, namespace, |renewals| *renewals.failed.entry(reason).or_default() += 1);
    }

    /// Drops the series of all other entries of this shard.
    pub(super) fn retain(&self, shard: Shard, ids: &HashSet<EntryId>) {
        self.credentials().retain(|id, _| !shard.covers(*id) || ids.contains(id));
    }

    fn with(&self, id: EntryId, step: Step, namespace: &str, change: impl FnOnce(&mut Renewals)) {
        let mut credentials = self.credentials();
        let new = || Credential { namespace: namespace.to_owned(), ..Credential::default() };
        let credential = credentials.entry(id).or_insert_with(new);
        change(if step == Step::Token { &mut credential.token } else { &mut credential.lease });
    }

    fn credentials(&self) -> MutexGuard<'_, HashMap<EntryId, Credential>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    pub(super) fn new(per_pod: Arc<PerPod>, shard: Shard) -> Self {
        Self(per_pod, shard)
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        let Self(per_pod, shard) = self;
        per_pod.retain(*shard, &HashSet::new());
    }
}

impl Collect for PerPod {
    fn collect(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (id, Credential { namespace, lease, token }) in &*self.credentials() {
            let labels = [("uuid", id.to_string()), ("namespace", namespace.clone())];
            for (renewals, renewed, error, expiration) in [
                (lease, &LEASE_RENEWED, &LEASE_ERROR, &LEASE_EXPIRATION),
                (token, &TOKEN_RENEWED, &TOKEN_ERROR, &TOKEN_EXPIRATION),
            ] {
                renewals.tell(&labels, renewed, error, expiration, &mut samples);
            }
        }
        samples
    }
}

impl Renewals {
    fn tell(
        &self,
        labels: &[(&'static str, String)],
        renewed: &'static Definition,
        error: &'static Definition,
        expiration: &'static Definition,
        samples: &mut Vec<Sample>,
    ) {
        if self.succeeded > 0 {
            samples.push(Sample {
                definition: renewed,
                labels: labels.to_vec(),
                value: self.succeeded as f64,
            });
        }
        for (reason, count) in &self.failed {
            let labels = [labels, &[("reason", (*reason).to_owned())]].concat();
            samples.push(Sample { definition: error, labels, value: *count as f64 });
        }
        let since_1970 = self.expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        samples.extend(since_1970.map(|at| Sample {
            definition: expiration,
            labels: labels.to_vec(),
            value: at.as_secs_f64().round(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use vdbi_core::admin;

    use super::super::Metrics;
    use super::*;

    fn lines(page: &admin::PrometheusPage, uuid: EntryId) -> Vec<String> {
        page.render().lines().filter(|line| line.contains(&uuid.to_string())).map(str::to_owned).collect()
    }

    #[test]
    fn each_credential_has_series_of_its_own_until_it_leaves_the_ledger() {
        let (registry, page) = admin::prometheus().unwrap();
        let metrics = Metrics::new(&registry).per_pod(&registry);
        let term = metrics.count(Shard::WHOLE);
        let (one, other) = (EntryId::random(), EntryId::random());
        for id in [one, one, other] {
            metrics.renewed(id, Step::Lease, "shop", Some(Duration::from_secs(60)));
        }
        metrics.failed(one, Step::Token, "shop", "unavailable");
        let of_one = lines(&page, one);
        assert_eq!(of_one.len(), 3, "{of_one:?}");
        let success = format!(r#"vdbi_renew_lease_count_success{{uuid="{one}",namespace="shop"}} 2"#);
        assert!(of_one.contains(&success), "{of_one:?}");
        let failed = format!(
            r#"vdbi_renew_token_count_error{{uuid="{one}",namespace="shop",reason="unavailable"}} 1"#
        );
        assert!(of_one.contains(&failed), "{of_one:?}");
        let described = page
            .render()
            .lines()
            .filter(|line| *line == "# TYPE vdbi_renew_lease_count_success counter")
            .count();
        assert_eq!(described, 1, "no metric is on the page twice");

        metrics.listed(Shard::WHOLE, &HashSet::from([other]));
        assert!(lines(&page, one).is_empty());
        assert_eq!(lines(&page, other).len(), 2);
        for shard in Shard::all(8).filter(|shard| !shard.covers(other)) {
            metrics.listed(shard, &HashSet::new());
        }
        assert_eq!(lines(&page, other).len(), 2, "a shard says nothing of the others");
        drop(term);
        assert!(lines(&page, other).is_empty(), "only the leader tells");
    }

    #[test]
    fn without_being_asked_for_no_series_has_a_uuid() {
        let (registry, page) = admin::prometheus().unwrap();
        let metrics = Metrics::new(&registry);
        let id = EntryId::random();
        metrics.renewed(id, Step::Lease, "shop", Some(Duration::from_secs(60)));
        metrics.failed(id, Step::Token, "shop", "unavailable");
        let page = page.render();
        assert!(page.contains(r#"vdbi_renew_lease_count_success{namespace="shop"} 1"#));
        assert!(!page.contains("uuid"), "{page}");
    }
}
