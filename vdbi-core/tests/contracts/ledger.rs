//! Ledgers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;
use vdbi_core::{
    ledger::{Entry, EntryId, Ledger, LedgerError, Stored},
    memory::MemoryLedger,
    secret::Secret,
    testing::{
        Broken,
        ledger::{self as suite, Fixture},
    },
};

use crate::wrong;

// ANCHOR: fixture
/// A ledger in a store that others can write to as well.
struct InStore<L> {
    ledger: L,
    store: MemoryLedger,
}

impl<L: Ledger> Fixture for InStore<L> {
    type Ledger = L;

    fn ledger(&self) -> &L {
        &self.ledger
    }

    // Over a server: write the fields with the store's own client.
    async fn put(&self, key: &str, fields: &BTreeMap<String, String>) -> bool {
        let fields = fields.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str())));
        self.store.insert_fields(key, fields.collect());
        true
    }
}

#[tokio::test(start_paused = true)]
async fn my_ledger_keeps_the_contract() {
    let store = MemoryLedger::new();
    suite::run(&InStore { ledger: store.clone(), store: store.clone() }).await;
    assert!(store.entries().is_empty(), "the suite forgets what it recorded");
}
// ANCHOR_END: fixture

#[tokio::test(start_paused = true)]
async fn one_clause_can_be_checked_alone_and_all_without_a_panic() {
    let my_ledger = MemoryLedger::new();
    // ANCHOR: alone
    suite::list_names_every_entry_once(&my_ledger).await;
    // ANCHOR_END: alone
    // ANCHOR: all
    assert_eq!(suite::broken(&my_ledger).await, []);
    // ANCHOR_END: all
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_lags_behind_keeps_the_contract() {
    let ledger = MemoryLedger::new();
    for _ in 0..3 {
        ledger.miss_next_read();
    }
    suite::run(&ledger).await;
}

/// What a wrong ledger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    TakesOneEntryForNone,
    DropsTheNode,
    RecordReplacesAnOlderEntry,
    RecordsWithoutALock,
    UpdateForgetsTheNode,
    UpdateReplacesAnOlderVersion,
    UpdatesWithoutALock,
    ListRepeats,
    ForgetKeepsTheKeyOfAnEntryWithAPast,
    ForgetFailsWhenGone,
    SurveyTellsAnother,
    UpdateCreates,
    TakesACorruptEntryForNone,
    FailsOverAForeignKey,
    ErrorsShowTheToken,
}

const FLAWS: [(Flaw, &str); 15] = [
    (Flaw::TakesOneEntryForNone, "a_recorded_entry_is_found"),
    (Flaw::DropsTheNode, "an_entry_comes_back_as_it_was_written"),
    (Flaw::RecordReplacesAnOlderEntry, "record_never_replaces"),
    (Flaw::RecordsWithoutALock, "one_of_many_records_wins"),
    (Flaw::UpdateForgetsTheNode, "update_replaces_the_version_that_was_read"),
    (Flaw::UpdateReplacesAnOlderVersion, "update_of_a_stale_version_is_a_conflict"),
    (Flaw::UpdatesWithoutALock, "one_of_many_updates_wins"),
    (Flaw::ListRepeats, "list_names_every_entry_once"),
    (Flaw::ForgetKeepsTheKeyOfAnEntryWithAPast, "forget_leaves_nothing_behind"),
    (Flaw::ForgetFailsWhenGone, "forget_is_idempotent"),
    (Flaw::SurveyTellsAnother, "survey_tells_what_read_finds"),
    (Flaw::UpdateCreates, "update_never_creates"),
    (Flaw::TakesACorruptEntryForNone, "what_is_no_entry_is_corrupt"),
    (Flaw::FailsOverAForeignKey, "a_key_that_is_no_id_is_left_alone"),
    (Flaw::ErrorsShowTheToken, "errors_show_no_secret"),
];

struct Wrong {
    ledger: MemoryLedger,
    flaw: Flaw,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    written_at: BTreeMap<EntryId, Instant>,
    updated: BTreeSet<EntryId>,
    forgotten: Vec<EntryId>,
    foreign_keys: BTreeSet<String>,
}

impl Wrong {
    fn new(flaw: Flaw) -> Self {
        let ledger = MemoryLedger::new();
        // So that calls at the same time overlap, and later ones come later.
        ledger.set_latency(Duration::from_millis(10));
        Self { ledger, flaw, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn replace(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        self.ledger.forget(id).await?;
        match self.ledger.record(id, entry).await {
            // Others do the same at the same time.
            Err(LedgerError::Conflict(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether what is stored has been there before this moment.
    fn is_old(&self, id: EntryId) -> bool {
        self.state().written_at.get(&id).is_some_and(|at| *at < Instant::now())
    }

    async fn version(&self, id: EntryId) -> Option<u64> {
        self.ledger.read(id).await.ok()?.map(|stored| stored.version)
    }

    async fn is_listed(&self, id: EntryId) -> Result<bool, LedgerError> {
        Ok(self.ledger.list().await?.contains(&id))
    }
}

struct OverWrong(Wrong);

impl Fixture for OverWrong {
    type Ledger = Wrong;

    fn ledger(&self) -> &Wrong {
        &self.0
    }

    async fn put(&self, key: &str, fields: &BTreeMap<String, String>) -> bool {
        if key.parse::<EntryId>().is_err() {
            self.0.state().foreign_keys.insert(key.to_owned());
        }
        let fields = fields.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str())));
        self.0.ledger.insert_fields(key, fields.collect());
        true
    }

    async fn remove(&self, key: &str) {
        self.0.state().foreign_keys.remove(key);
    }
}

impl Ledger for Wrong {
    async fn record(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        let outcome = match self.flaw {
            Flaw::RecordsWithoutALock if matches!(self.ledger.read(id).await, Ok(None)) => {
                self.replace(id, entry).await
            }
            Flaw::DropsTheNode => {
                let mut entry = entry.clone();
                entry.pod.node = None;
                self.ledger.record(id, &entry).await
            }
            _ => self.ledger.record(id, entry).await,
        };
        match (self.flaw, outcome) {
            (Flaw::RecordReplacesAnOlderEntry, Err(LedgerError::Conflict(_))) if self.is_old(id) => {
                self.replace(id, entry).await
            }
            (Flaw::ErrorsShowTheToken, Err(_)) if entry.raw_token.is_some() => {
                let token = entry.raw_token.as_ref().map_or("", Secret::expose);
                Err(LedgerError::Unavailable(format!("refused {token}")))
            }
            (_, Ok(())) => {
                self.state().written_at.insert(id, Instant::now());
                Ok(())
            }
            (_, outcome) => outcome,
        }
    }

    async fn read(&self, id: EntryId) -> Result<Option<Stored>, LedgerError> {
        match self.ledger.read(id).await {
            Err(LedgerError::Corrupt { .. }) if self.flaw == Flaw::TakesACorruptEntryForNone => Ok(None),
            outcome => outcome,
        }
    }

    async fn update(&self, id: EntryId, entry: &Entry, expected: u64) -> Result<(), LedgerError> {
        let exists = self.is_listed(id).await?;
        let outcome = match self.flaw {
            Flaw::UpdatesWithoutALock if self.version(id).await == Some(expected) => {
                self.replace(id, entry).await
            }
            Flaw::UpdateCreates if !exists => self.replace(id, entry).await,
            Flaw::UpdateForgetsTheNode => {
                let mut entry = entry.clone();
                entry.pod.node = None;
                self.ledger.update(id, &entry, expected).await
            }
            _ => self.ledger.update(id, entry, expected).await,
        };
        match outcome {
            Err(LedgerError::Conflict(_))
                if self.flaw == Flaw::UpdateReplacesAnOlderVersion && exists && self.is_old(id) =>
            {
                self.replace(id, entry).await
            }
            Ok(()) => {
                let mut state = self.state();
                state.written_at.insert(id, Instant::now());
                state.updated.insert(id);
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn list(&self) -> Result<Vec<EntryId>, LedgerError> {
        let mut ids = self.ledger.list().await?;
        match self.flaw {
            Flaw::TakesOneEntryForNone if ids.len() == 1 => ids.clear(),
            Flaw::ListRepeats => ids.extend(ids.clone()),
            Flaw::ForgetKeepsTheKeyOfAnEntryWithAPast => ids.extend(&self.state().forgotten),
            Flaw::FailsOverAForeignKey if !self.state().foreign_keys.is_empty() => {
                return Err(LedgerError::Unavailable("a key is no id".into()));
            }
            _ => {}
        }
        Ok(ids)
    }

    async fn survey(&self) -> Result<Vec<(EntryId, Option<Stored>)>, LedgerError> {
        let mut surveyed = Vec::new();
        for id in self.ledger.list().await? {
            let mut stored = self.ledger.read(id).await.ok().flatten();
            if let Some(stored) = stored.as_mut().filter(|_| self.flaw == Flaw::SurveyTellsAnother) {
                stored.entry.raw_token = None;
            }
            surveyed.push((id, stored));
        }
        Ok(surveyed)
    }

    async fn forget(&self, id: EntryId) -> Result<(), LedgerError> {
        if self.flaw == Flaw::ForgetFailsWhenGone && !self.is_listed(id).await? {
            return Err(LedgerError::Unavailable("there is no such entry".into()));
        }
        self.ledger.forget(id).await?;
        let mut state = self.state();
        if state.updated.contains(&id) {
            state.forgotten.push(id);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_wrong_ledger_breaks_the_clause_meant() {
    for (flaw, clause) in FLAWS {
        let run = Broken::by("run", suite::run(&OverWrong(Wrong::new(flaw)))).await;
        let broken = suite::broken(&OverWrong(Wrong::new(flaw))).await;
        let message = wrong::expect_one_broken(flaw, clause, &broken, run);
        assert!(!message.contains("contract-suite-raw-token"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_documentation_shows_what_a_failing_run_prints() {
    let run = Broken::by("run", suite::run(&Wrong::new(Flaw::ListRepeats))).await.unwrap();
    assert!(wrong::page().contains(&format!("\n{run}\n")), "{run}");
}

#[test]
fn every_clause_of_the_suite_has_a_wrong_ledger() {
    wrong::expect_complete("vdbi_core::testing::ledger", suite::CLAUSES, &FLAWS);
}
