#![cfg(feature = "memory")]

use std::sync::Mutex;

use super::*;
use crate::{memory::MemoryLedger, testing::message_of_the_broken_clause};

#[tokio::test(start_paused = true)]
async fn the_ledger_in_memory_keeps_the_contract() {
    let ledger = MemoryLedger::new();
    run(&ledger).await;
    run(&std::sync::Arc::new(ledger.clone())).await;
    assert!(ledger.entries().is_empty(), "the suite forgets what it recorded");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_lags_behind_keeps_the_contract() {
    let ledger = MemoryLedger::new();
    for _ in 0..3 {
        ledger.miss_next_read();
    }
    run(&ledger).await;
}

/// What a broken ledger does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    RecordReplaces,
    UpdateIgnoresTheVersion,
    UpdateCreates,
    ForgetKeepsTheKey,
    ForgetFailsWhenGone,
    ListRepeats,
    DropsTheNode,
    ErrorsShowTheToken,
    SurveyTellsAnother,
}

struct Broken {
    ledger: MemoryLedger,
    flaw: Flaw,
    forgotten: Mutex<Vec<EntryId>>,
}

impl Broken {
    fn new(flaw: Flaw) -> Self {
        Self { ledger: MemoryLedger::new(), flaw, forgotten: Mutex::default() }
    }

    async fn replace(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        self.ledger.forget(id).await?;
        self.ledger.record(id, entry).await
    }
}

impl Ledger for Broken {
    async fn record(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        match self.flaw {
            Flaw::RecordReplaces => self.replace(id, entry).await,
            Flaw::DropsTheNode => {
                let mut entry = entry.clone();
                entry.pod.node = None;
                self.ledger.record(id, &entry).await
            }
            Flaw::ErrorsShowTheToken => self.ledger.record(id, entry).await.map_err(|_| {
                let token = entry.raw_token.as_ref().map_or("", Secret::expose);
                LedgerError::Unavailable(format!("refused {token}"))
            }),
            _ => self.ledger.record(id, entry).await,
        }
    }

    async fn read(&self, id: EntryId) -> Result<Option<Stored>, LedgerError> {
        self.ledger.read(id).await
    }

    async fn update(&self, id: EntryId, entry: &Entry, expected: u64) -> Result<(), LedgerError> {
        let exists = self.ledger.read(id).await?.is_some();
        match self.flaw {
            Flaw::UpdateIgnoresTheVersion if exists => self.replace(id, entry).await,
            Flaw::UpdateCreates if !exists => self.replace(id, entry).await,
            _ => self.ledger.update(id, entry, expected).await,
        }
    }

    async fn list(&self) -> Result<Vec<EntryId>, LedgerError> {
        let mut ids = self.ledger.list().await?;
        match self.flaw {
            Flaw::ListRepeats => ids.extend(ids.clone()),
            Flaw::ForgetKeepsTheKey => ids.extend(&*self.forgotten.lock().unwrap()),
            _ => {}
        }
        Ok(ids)
    }

    async fn survey(&self) -> Result<Vec<(EntryId, Option<Stored>)>, LedgerError> {
        let mut surveyed = Vec::new();
        for id in self.list().await? {
            let mut stored = self.ledger.read(id).await?;
            if let Some(stored) = stored.as_mut().filter(|_| self.flaw == Flaw::SurveyTellsAnother) {
                stored.entry.raw_token = None;
            }
            surveyed.push((id, stored));
        }
        Ok(surveyed)
    }

    async fn forget(&self, id: EntryId) -> Result<(), LedgerError> {
        let exists = self.ledger.read(id).await?.is_some();
        if self.flaw == Flaw::ForgetFailsWhenGone && !exists {
            return Err(LedgerError::Unavailable("there is no such entry".into()));
        }
        self.forgotten.lock().unwrap().push(id);
        self.ledger.forget(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_what_is_broken() {
    let flaws = [
        (Flaw::DropsTheNode, "an_entry_comes_back_as_it_was_written"),
        (Flaw::RecordReplaces, "record_never_replaces"),
        (Flaw::UpdateIgnoresTheVersion, "update_of_a_stale_version_is_a_conflict"),
        (Flaw::ListRepeats, "list_names_every_entry_once"),
        (Flaw::ForgetKeepsTheKey, "forget_leaves_nothing_behind"),
        (Flaw::ForgetFailsWhenGone, "forget_is_idempotent"),
        (Flaw::SurveyTellsAnother, "survey_tells_what_read_finds"),
        (Flaw::UpdateCreates, "update_never_creates"),
    ];
    for (flaw, clause) in flaws {
        let message = message_of_the_broken_clause(run(&Broken::new(flaw))).await;
        assert!(message.contains(&format!("clause {clause}:")), "{message}");
    }
    let ledger = Broken::new(Flaw::ErrorsShowTheToken);
    let message = message_of_the_broken_clause(errors_show_no_secret(&ledger)).await;
    assert!(message.contains("errors_show_no_secret") && !message.contains(RAW_TOKEN), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_a_race_that_nobody_loses() {
    let ledger = Broken::new(Flaw::UpdateIgnoresTheVersion);
    let message = message_of_the_broken_clause(one_of_many_updates_wins(&ledger)).await;
    assert!(message.contains("8 attempts succeeded"), "{message}");
}
