//! The entries of the suite, and what is expected of them.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    credential::{Lease, TokenHandle},
    ledger::{Entry, EntryId, LedgerError, Owner},
    pod::PodRef,
    secret::Secret,
    testing::Clause,
};

/// A token that must not show up anywhere.
pub(super) const RAW_TOKEN: &str = "s.contract-suite-raw-token";

/// Fields that are no entry: every entry has a lease and a pod.
pub(super) fn strange() -> BTreeMap<String, String> {
    [("TokenId".to_owned(), RAW_TOKEN.to_owned())].into()
}

/// The least that an entry says; `mark` tells it from others.
pub(super) fn entry(mark: &str) -> Entry {
    Entry {
        lease: Lease {
            id: format!("databases/creds/app/{mark}"),
            token: TokenHandle::Accessor(format!("accessor-{mark}")),
        },
        owner: None,
        pod: PodRef { namespace: "shop".into(), service_account: "app1".into(), ..PodRef::default() },
        database: "main".into(),
        role: "app".into(),
        issued_at: None,
        ttl: None,
        raw_token: None,
    }
}

/// An entry with everything that one can say.
pub(super) fn full(mark: &str) -> Entry {
    Entry {
        pod: PodRef {
            namespace: "shop".into(),
            name: Some("web-0".into()),
            uid: Some("7d4c1c3e-0000-4000-8000-000000000001".into()),
            service_account: "app1".into(),
            node: Some("node-1".into()),
        },
        owner: Some(Owner { cluster: "cluster".into(), release: "release".into() }),
        issued_at: "2026-11-24T01:02:03Z".parse().ok(),
        ttl: Some(Duration::from_secs(3600)),
        raw_token: Some(Secret::new(RAW_TOKEN)),
        ..entry(mark)
    }
}

pub(super) fn expect_same(clause: Clause, found: &Entry, written: &Entry) {
    let (found, written) = (found.to_fields(), written.to_fields());
    for (field, value) in &written {
        let same = found.get(field).is_some_and(|found| found.expose() == value.expose());
        clause.holds(same, format_args!("the field {field} is not the one that was written"));
    }
    clause.holds(found.len() == written.len(), "the entry that was read has other fields than were written");
}

pub(super) fn expect_conflict(clause: Clause, id: EntryId, call: &str, outcome: Result<(), LedgerError>) {
    match outcome {
        Err(LedgerError::Conflict(other)) if other == id => {}
        Err(error) => clause.broken(format_args!("{call} is no conflict of this entry: {error}")),
        Ok(()) => clause.broken(format_args!("{call} succeeded")),
    }
}

/// Which of several attempts succeeded.
pub(super) fn winner(clause: Clause, id: EntryId, outcomes: Vec<Result<(), LedgerError>>) -> usize {
    let mut winners = Vec::new();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(()) => winners.push(number),
            lost => expect_conflict(clause, id, "an attempt that lost", lost),
        }
    }
    match winners[..] {
        [winner] => winner,
        _ => clause.broken(format_args!("{} attempts succeeded", winners.len())),
    }
}
