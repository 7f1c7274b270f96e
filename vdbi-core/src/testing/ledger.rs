//! The contract of [`Ledger`].

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;

use super::Clause;
use crate::{
    credential::{Lease, TokenHandle},
    ledger::{Entry, EntryId, Ledger, LedgerError, Owner, Stored},
    pod::PodRef,
    secret::Secret,
};

/// How long a read or a list may lag behind a write: a standby server serves what it has.
const LAG: Duration = Duration::from_secs(5);

/// A token that must not show up anywhere.
const RAW_TOKEN: &str = "s.contract-suite-raw-token";

/// Runs every clause. The ledger may hold other entries, and others may use it at the same time; what the suite records it
/// forgets again.
///
/// # Panics
///
/// When a clause is broken.
pub async fn run(ledger: &impl Ledger) {
    a_recorded_entry_is_found(ledger).await;
    an_entry_comes_back_as_it_was_written(ledger).await;
    record_never_replaces(ledger).await;
    one_of_many_records_wins(ledger).await;
    update_replaces_the_version_that_was_read(ledger).await;
    update_of_a_stale_version_is_a_conflict(ledger).await;
    one_of_many_updates_wins(ledger).await;
    list_names_every_entry_once(ledger).await;
    forget_leaves_nothing_behind(ledger).await;
    forget_is_idempotent(ledger).await;
    survey_tells_what_read_finds(ledger).await;
    update_never_creates(ledger).await;
    errors_show_no_secret(ledger).await;
}

/// Once `record` returned `Ok`, `read` and `list` find the entry.
pub async fn a_recorded_entry_is_found(ledger: &impl Ledger) {
    let clause = clause("a_recorded_entry_is_found");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("found")).await);
    read(clause, ledger, id).await;
    let listed = async || clause.ok("list", ledger.list().await).contains(&id);
    clause.eventually(LAG, "list leaves out what was recorded", listed).await;
    clause.ok("forget", ledger.forget(id).await);
}

/// An entry is read as it was written: with an accessor or a raw token, an owner or none, a pod with or without name and uid.
pub async fn an_entry_comes_back_as_it_was_written(ledger: &impl Ledger) {
    let clause = clause("an_entry_comes_back_as_it_was_written");
    let full = Entry {
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
        ..entry("full")
    };
    let mut taken_over = entry("taken-over");
    taken_over.lease.token = TokenHandle::Raw(Secret::new(RAW_TOKEN));
    let mut tokenless = entry("tokenless");
    tokenless.lease.token = TokenHandle::None;
    for written in [full, entry("sparse"), taken_over, tokenless] {
        let id = EntryId::random();
        clause.ok("record", ledger.record(id, &written).await);
        let found = read(clause, ledger, id).await.entry;
        expect_same(clause, &found, &written);
        clause.ok("forget", ledger.forget(id).await);
    }
}

/// `record` of an id that is taken is a conflict, and leaves the entry alone.
pub async fn record_never_replaces(ledger: &impl Ledger) {
    let clause = clause("record_never_replaces");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    expect_conflict(clause, id, "a second record", ledger.record(id, &entry("second")).await);
    expect_same(clause, &read(clause, ledger, id).await.entry, &entry("first"));
    clause.ok("forget", ledger.forget(id).await);
}

/// Of several `record`s of one id at the same time one succeeds; the others are conflicts.
pub async fn one_of_many_records_wins(ledger: &impl Ledger) {
    let clause = clause("one_of_many_records_wins");
    let id = EntryId::random();
    let entries: Vec<_> = (0..8).map(|number| entry(&format!("racer-{number}"))).collect();
    let outcomes = join_all(entries.iter().map(|entry| ledger.record(id, entry))).await;
    let winner = winner(clause, id, outcomes);
    expect_same(clause, &read(clause, ledger, id).await.entry, &entries[winner]);
    clause.ok("forget", ledger.forget(id).await);
}

/// `update` with the version that was read replaces the entry, and gives it another version.
pub async fn update_replaces_the_version_that_was_read(ledger: &impl Ledger) {
    let clause = clause("update_replaces_the_version_that_was_read");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    let version = read(clause, ledger, id).await.version;
    clause.ok("update", ledger.update(id, &entry("second"), version).await);
    let updated = async || {
        let stored = read(clause, ledger, id).await;
        stored.version != version && stored.entry.lease.id == entry("second").lease.id
    };
    clause.eventually(LAG, "read does not find the update under another version", updated).await;
    clause.ok("forget", ledger.forget(id).await);
}

/// `update` with a version that has been replaced is a conflict, and leaves the entry alone.
pub async fn update_of_a_stale_version_is_a_conflict(ledger: &impl Ledger) {
    let clause = clause("update_of_a_stale_version_is_a_conflict");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    let version = read(clause, ledger, id).await.version;
    clause.ok("update", ledger.update(id, &entry("second"), version).await);
    let late = ledger.update(id, &entry("third"), version).await;
    expect_conflict(clause, id, "an update of a replaced version", late);
    let unharmed = async || read(clause, ledger, id).await.entry.lease.id == entry("second").lease.id;
    clause.eventually(LAG, "the refused update had an effect", unharmed).await;
    clause.ok("forget", ledger.forget(id).await);
}

/// `update` of an entry that is gone, or never was, is a conflict and creates nothing, whatever the version.
pub async fn update_never_creates(ledger: &impl Ledger) {
    let clause = clause("update_never_creates");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    let version = read(clause, ledger, id).await.version;
    clause.ok("forget", ledger.forget(id).await);
    let late = ledger.update(id, &entry("second"), version).await;
    expect_conflict(clause, id, "an update of a forgotten entry", late);
    let other = EntryId::random();
    for version in [0, 1] {
        let early = ledger.update(other, &entry("second"), version).await;
        expect_conflict(clause, other, "an update of an entry that never was", early);
    }
    let absent = async || {
        let listed = clause.ok("list", ledger.list().await);
        !listed.contains(&id) && !listed.contains(&other)
    };
    clause.eventually(LAG, "an update created an entry", absent).await;
}

/// Of several `update`s of one version at the same time one succeeds; the others are conflicts.
pub async fn one_of_many_updates_wins(ledger: &impl Ledger) {
    let clause = clause("one_of_many_updates_wins");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    let version = read(clause, ledger, id).await.version;
    let entries: Vec<_> = (0..8).map(|number| entry(&format!("racer-{number}"))).collect();
    let outcomes = join_all(entries.iter().map(|entry| ledger.update(id, entry, version))).await;
    let winner = winner(clause, id, outcomes);
    let stored = async || read(clause, ledger, id).await.entry.lease.id == entries[winner].lease.id;
    clause.eventually(LAG, "another update than the one that succeeded is stored", stored).await;
    clause.ok("forget", ledger.forget(id).await);
}

/// `list` names every entry, and none twice.
pub async fn list_names_every_entry_once(ledger: &impl Ledger) {
    let clause = clause("list_names_every_entry_once");
    let ids: BTreeSet<_> = (0..20).map(|_| EntryId::random()).collect();
    for id in &ids {
        clause.ok("record", ledger.record(*id, &entry("listed")).await);
    }
    let complete = async || {
        let listed = clause.ok("list", ledger.list().await);
        let distinct: BTreeSet<_> = listed.iter().copied().collect();
        clause.holds(distinct.len() == listed.len(), "list names an entry twice");
        ids.is_subset(&distinct)
    };
    clause.eventually(LAG, "list leaves out entries", complete).await;
    for id in ids {
        clause.ok("forget", ledger.forget(id).await);
    }
}

/// `survey` names what `list` names, and an entry that it tells is the one that `read` finds, also after updates and with a raw token.
pub async fn survey_tells_what_read_finds(ledger: &impl Ledger) {
    let clause = clause("survey_tells_what_read_finds");
    let taken_over = Entry {
        lease: Lease { token: TokenHandle::Raw(Secret::new(RAW_TOKEN)), ..entry("raw").lease },
        ..entry("raw")
    };
    let way_back = Entry { raw_token: Some(Secret::new(RAW_TOKEN)), ..entry("way-back") };
    let ids = [EntryId::random(), EntryId::random(), EntryId::random()];
    for (id, written) in ids.into_iter().zip([entry("surveyed"), taken_over, way_back]) {
        clause.ok("record", ledger.record(id, &written).await);
        for name in ["first", "second"] {
            let version = read(clause, ledger, id).await.version;
            let pod = PodRef { name: Some(name.into()), ..written.pod.clone() };
            let changed = Entry { pod, ..written.clone() };
            clause.ok("update", ledger.update(id, &changed, version).await);
            let agrees = async || {
                let stored = read(clause, ledger, id).await;
                let surveyed = clause.ok("survey", ledger.survey().await);
                let told: Vec<_> = surveyed.into_iter().filter(|(other, _)| *other == id).collect();
                match &told[..] {
                    [(_, None)] => true,
                    [(_, Some(told))] if told.version == stored.version => {
                        expect_same(clause, &told.entry, &stored.entry);
                        true
                    }
                    _ => false,
                }
            };
            clause.eventually(LAG, "survey does not tell the entry that read finds", agrees).await;
        }
    }
    for id in ids {
        clause.ok("forget", ledger.forget(id).await);
    }
    let absent = async || {
        let surveyed = clause.ok("survey", ledger.survey().await);
        !surveyed.iter().any(|(id, _)| ids.contains(id))
    };
    clause.eventually(LAG, "survey names what was forgotten", absent).await;
}

/// After `forget` neither `read` nor `list` finds the entry.
pub async fn forget_leaves_nothing_behind(ledger: &impl Ledger) {
    let clause = clause("forget_leaves_nothing_behind");
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("forgotten")).await);
    let version = read(clause, ledger, id).await.version;
    // An entry with a past has more to leave behind.
    clause.ok("update", ledger.update(id, &entry("again"), version).await);
    clause.ok("forget", ledger.forget(id).await);
    let unlisted = async || !clause.ok("list", ledger.list().await).contains(&id);
    clause.eventually(LAG, "list names what was forgotten", unlisted).await;
    let unreadable = async || clause.ok("read", ledger.read(id).await).is_none();
    clause.eventually(LAG, "read finds what was forgotten", unreadable).await;
}

/// `forget` of what is gone, or never was, succeeds.
pub async fn forget_is_idempotent(ledger: &impl Ledger) {
    let clause = clause("forget_is_idempotent");
    let id = EntryId::random();
    clause.ok("forget of an entry that never was", ledger.forget(id).await);
    clause.ok("record", ledger.record(id, &entry("forgotten")).await);
    clause.ok("forget", ledger.forget(id).await);
    clause.ok("a second forget", ledger.forget(id).await);
}

/// No error, neither for people nor for developers, contains the token of an entry.
pub async fn errors_show_no_secret(ledger: &impl Ledger) {
    let clause = clause("errors_show_no_secret");
    let id = EntryId::random();
    let secretive = Entry { raw_token: Some(Secret::new(RAW_TOKEN)), ..entry("secretive") };
    clause.ok("record", ledger.record(id, &secretive).await);
    let stale = read(clause, ledger, id).await.version.wrapping_add(1_000_000);
    let refused = [ledger.record(id, &secretive).await, ledger.update(id, &secretive, stale).await];
    for error in refused.into_iter().filter_map(Result::err) {
        let text = format!("{error} {error:?}");
        clause.holds(!text.contains(RAW_TOKEN), "an error contains the raw token");
    }
    clause.ok("forget", ledger.forget(id).await);
}

fn clause(name: &'static str) -> Clause {
    Clause { contract: "Ledger", name }
}

/// The least that an entry says; `mark` tells it from others.
fn entry(mark: &str) -> Entry {
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

/// Reads an entry that was recorded; a standby server may not know it yet.
async fn read(clause: Clause, ledger: &impl Ledger, id: EntryId) -> Stored {
    let mut stored = None;
    let found = async || {
        stored = clause.ok("read", ledger.read(id).await);
        stored.is_some()
    };
    clause.eventually(LAG, "read does not find what was recorded", found).await;
    match stored {
        Some(stored) => stored,
        None => clause.broken("read does not find what was recorded"),
    }
}

fn expect_same(clause: Clause, found: &Entry, written: &Entry) {
    let (found, written) = (found.to_fields(), written.to_fields());
    for (field, value) in &written {
        let same = found.get(field).is_some_and(|found| found.expose() == value.expose());
        clause.holds(same, format_args!("the field {field} is not the one that was written"));
    }
    clause.holds(found.len() == written.len(), "the entry that was read has other fields than were written");
}

fn expect_conflict(clause: Clause, id: EntryId, call: &str, outcome: Result<(), LedgerError>) {
    match outcome {
        Err(LedgerError::Conflict(other)) if other == id => {}
        Err(error) => clause.broken(format_args!("{call} is no conflict of this entry: {error}")),
        Ok(()) => clause.broken(format_args!("{call} succeeded")),
    }
}

/// Which of several attempts succeeded.
fn winner(clause: Clause, id: EntryId, outcomes: Vec<Result<(), LedgerError>>) -> usize {
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

#[cfg(test)]
mod tests;
