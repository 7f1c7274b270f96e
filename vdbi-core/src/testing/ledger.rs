//! The contract of [`Ledger`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use futures::future::join_all;

use super::Clause;
use crate::{
    credential::{Lease, TokenHandle},
    ledger::{Entry, EntryId, Ledger, LedgerError, Stored},
    pod::PodRef,
    secret::Secret,
    suite,
};

mod entries;

use entries::{RAW_TOKEN, entry, expect_conflict, expect_same, full, strange, winner};

/// How long a read or a list may lag behind a write: a standby server serves what it has.
const LAG: Duration = Duration::from_secs(5);

/// A ledger, with what a test has to know about its set-up. Every ledger is one by itself, without the clauses about what another
/// program has put beside its entries.
pub trait Fixture {
    /// The ledger.
    type Ledger: Ledger;

    /// The ledger. It may hold other entries, and others may use it at the same time.
    fn ledger(&self) -> &Self::Ledger;

    /// Stores such fields under a key beside those of the entries, past the ledger, as another program would. `false` where a test
    /// cannot do that, which is the default.
    fn put(&self, key: &str, fields: &BTreeMap<String, String>) -> impl Future<Output = bool> {
        let _ = (key, fields);
        std::future::ready(false)
    }

    /// Removes what [`put`](Self::put) has stored and the ledger leaves alone. Nothing by default.
    fn remove(&self, key: &str) -> impl Future<Output = ()> {
        let _ = key;
        std::future::ready(())
    }
}

impl<L: Ledger> Fixture for L {
    type Ledger = L;

    fn ledger(&self) -> &L {
        self
    }
}

suite! {
    /// Runs every clause. What the suite records it forgets again.
    pub async fn run(fixture: &impl Fixture) {
        a_recorded_entry_is_found,
        an_entry_comes_back_as_it_was_written,
        record_never_replaces,
        one_of_many_records_wins,
        update_replaces_the_version_that_was_read,
        update_of_a_stale_version_is_a_conflict,
        one_of_many_updates_wins,
        list_names_every_entry_once,
        forget_leaves_nothing_behind,
        forget_is_idempotent,
        survey_tells_what_read_finds,
        update_never_creates,
        what_is_no_entry_is_corrupt,
        a_key_that_is_no_id_is_left_alone,
        errors_show_no_secret,
    }
}

/// Once `record` returned `Ok`, `read` and `list` find the entry.
pub async fn a_recorded_entry_is_found(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("a_recorded_entry_is_found"), fixture.ledger());
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("found")).await);
    read(clause, ledger, id).await;
    let listed = async || clause.ok("list", ledger.list().await).contains(&id);
    clause.eventually(LAG, "list leaves out what was recorded", listed).await;
    clause.ok("forget", ledger.forget(id).await);
}

/// An entry is read as it was written: with an accessor or a raw token, an owner or none, a pod with or without name and uid.
pub async fn an_entry_comes_back_as_it_was_written(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("an_entry_comes_back_as_it_was_written"), fixture.ledger());
    let mut taken_over = entry("taken-over");
    taken_over.lease.token = TokenHandle::Raw(Secret::new(RAW_TOKEN));
    let mut tokenless = entry("tokenless");
    tokenless.lease.token = TokenHandle::None;
    for written in [full("full"), entry("sparse"), taken_over, tokenless] {
        let id = EntryId::random();
        clause.ok("record", ledger.record(id, &written).await);
        let found = read(clause, ledger, id).await.entry;
        expect_same(clause, &found, &written);
        clause.ok("forget", ledger.forget(id).await);
    }
}

/// `record` of an id that is taken is a conflict, and leaves the entry alone.
pub async fn record_never_replaces(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("record_never_replaces"), fixture.ledger());
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    expect_conflict(clause, id, "a second record", ledger.record(id, &entry("second")).await);
    expect_same(clause, &read(clause, ledger, id).await.entry, &entry("first"));
    clause.ok("forget", ledger.forget(id).await);
}

/// Of several `record`s of one id at the same time one succeeds; the others are conflicts.
pub async fn one_of_many_records_wins(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("one_of_many_records_wins"), fixture.ledger());
    let id = EntryId::random();
    let entries: Vec<_> = (0..8).map(|number| entry(&format!("racer-{number}"))).collect();
    let outcomes = join_all(entries.iter().map(|entry| ledger.record(id, entry))).await;
    let winner = winner(clause, id, outcomes);
    expect_same(clause, &read(clause, ledger, id).await.entry, &entries[winner]);
    clause.ok("forget", ledger.forget(id).await);
}

/// `update` with the version that was read replaces the entry, and gives it another version.
pub async fn update_replaces_the_version_that_was_read(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("update_replaces_the_version_that_was_read"), fixture.ledger());
    let id = EntryId::random();
    clause.ok("record", ledger.record(id, &entry("first")).await);
    let version = read(clause, ledger, id).await.version;
    let second = full("second");
    clause.ok("update", ledger.update(id, &second, version).await);
    let mut updated = None;
    let found = async || {
        updated = Some(read(clause, ledger, id).await).filter(|stored| stored.version != version);
        updated.is_some()
    };
    clause.eventually(LAG, "read does not find the update under another version", found).await;
    if let Some(updated) = updated {
        expect_same(clause, &updated.entry, &second);
    }
    clause.ok("forget", ledger.forget(id).await);
}

/// `update` with a version that has been replaced is a conflict, and leaves the entry alone.
pub async fn update_of_a_stale_version_is_a_conflict(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("update_of_a_stale_version_is_a_conflict"), fixture.ledger());
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
pub async fn update_never_creates(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("update_never_creates"), fixture.ledger());
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
pub async fn one_of_many_updates_wins(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("one_of_many_updates_wins"), fixture.ledger());
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
pub async fn list_names_every_entry_once(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("list_names_every_entry_once"), fixture.ledger());
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
pub async fn survey_tells_what_read_finds(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("survey_tells_what_read_finds"), fixture.ledger());
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
pub async fn forget_leaves_nothing_behind(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("forget_leaves_nothing_behind"), fixture.ledger());
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
pub async fn forget_is_idempotent(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("forget_is_idempotent"), fixture.ledger());
    let id = EntryId::random();
    clause.ok("forget of an entry that never was", ledger.forget(id).await);
    clause.ok("record", ledger.record(id, &entry("forgotten")).await);
    clause.ok("forget", ledger.forget(id).await);
    clause.ok("a second forget", ledger.forget(id).await);
}

/// What is stored under an id and is no entry is corrupt: `read` says so, `list` and `survey` name it, `record` does not replace it,
/// and `forget` removes it.
pub async fn what_is_no_entry_is_corrupt(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("what_is_no_entry_is_corrupt"), fixture.ledger());
    let id = EntryId::random();
    if !fixture.put(&id.to_string(), &strange()).await {
        return;
    }
    let corrupt = async || match ledger.read(id).await {
        Err(LedgerError::Corrupt { id: other, .. }) if other == id => true,
        Err(error) => clause.broken(format_args!("read says of it: {error}")),
        Ok(Some(_)) => clause.broken("read takes it for an entry"),
        // A standby server may not know it yet.
        Ok(None) => false,
    };
    clause.eventually(LAG, "read finds nothing", corrupt).await;
    let listed = async || clause.ok("list", ledger.list().await).contains(&id);
    clause.eventually(LAG, "list leaves it out", listed).await;
    let surveyed = async || {
        let surveyed = clause.ok("survey", ledger.survey().await);
        surveyed.iter().any(|(other, stored)| *other == id && stored.is_none())
    };
    clause.eventually(LAG, "survey leaves it out, or tells an entry", surveyed).await;
    expect_conflict(clause, id, "a record in its place", ledger.record(id, &entry("second")).await);
    clause.ok("forget", ledger.forget(id).await);
    let unlisted = async || !clause.ok("list", ledger.list().await).contains(&id);
    clause.eventually(LAG, "list names what was forgotten", unlisted).await;
}

/// A key that is no id does not keep `list` and `survey` from naming the entries.
pub async fn a_key_that_is_no_id_is_left_alone(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("a_key_that_is_no_id_is_left_alone"), fixture.ledger());
    let id = EntryId::random();
    let key = format!("no-id-{id}");
    if !fixture.put(&key, &strange()).await {
        return;
    }
    clause.ok("record", ledger.record(id, &entry("beside")).await);
    let listed = async || clause.ok("list", ledger.list().await).contains(&id);
    clause.eventually(LAG, "list leaves out the entry beside it", listed).await;
    let surveyed = async || {
        let surveyed = clause.ok("survey", ledger.survey().await);
        surveyed.iter().any(|(other, _)| *other == id)
    };
    clause.eventually(LAG, "survey leaves out the entry beside it", surveyed).await;
    clause.ok("forget", ledger.forget(id).await);
    fixture.remove(&key).await;
}

/// No error, neither for people nor for developers, contains the token of an entry, or what is stored in its place.
pub async fn errors_show_no_secret(fixture: &impl Fixture) {
    let (clause, ledger) = (clause("errors_show_no_secret"), fixture.ledger());
    let id = EntryId::random();
    let secretive = Entry { raw_token: Some(Secret::new(RAW_TOKEN)), ..entry("secretive") };
    clause.ok("record", ledger.record(id, &secretive).await);
    let stale = read(clause, ledger, id).await.version.wrapping_add(1_000_000);
    let mut errors = Vec::new();
    errors.extend(ledger.record(id, &secretive).await.err());
    errors.extend(ledger.update(id, &secretive, stale).await.err());
    let other = EntryId::random();
    let is_there = fixture.put(&other.to_string(), &strange()).await;
    errors.extend(ledger.read(other).await.err());
    for error in errors {
        let text = format!("{error} {error:?}");
        clause.holds(!text.contains(RAW_TOKEN), "an error contains the raw token");
    }
    clause.ok("forget", ledger.forget(id).await);
    if is_there {
        clause.ok("forget", ledger.forget(other).await);
    }
}

fn clause(name: &'static str) -> Clause {
    Clause::new("Ledger", name)
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
