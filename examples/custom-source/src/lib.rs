//! Another secret backend for vdbi: accounts in the files of a directory, and the ledger beside them.
//!
//! [`FileSource`] is the backend, [`FileLedger`] its bookkeeping, and [`Files`] opens both for the stock components:
//! `vdbi::main::<Files>` is all of them. `tests/contract.rs` runs the contract suites over both.

// ANCHOR: modules
mod ledger;
mod source;

pub use ledger::FileLedger;
pub use source::FileSource;
// ANCHOR_END: modules

// ANCHOR: backend
use std::path::PathBuf;

use anyhow::Context;
use bootstrap::{Backend, Process};
use vdbi_core::{config::parse_duration, health::Probe};

/// The directory that `FILES_DIRECTORY` names, with `roles`, `accounts` and `ledger` in it. An account lives for `FILES_TTL`, ten
/// minutes by default, unless it is renewed.
pub struct Files;

impl Backend for Files {
    type Source = FileSource;
    type Ledger = FileLedger;

    fn open(process: &mut Process, _: &kube::Client) -> anyhow::Result<(FileSource, FileLedger)> {
        let directory = std::env::var_os("FILES_DIRECTORY")
            .context("FILES_DIRECTORY is not set: the directory of roles, accounts and ledger")?;
        let directory = PathBuf::from(directory);
        let ttl = parse_duration(&std::env::var("FILES_TTL").unwrap_or("10m".into())).context("FILES_TTL")?;
        let accounts = directory.join("accounts");
        process.health.register_with("files", Probe::Ready, move || {
            let found = accounts.is_dir();
            if found { Ok(()) } else { Err(format!("{} is no directory", accounts.display())) }
        });
        Ok((FileSource::new(&directory, ttl), FileLedger::new(directory.join("ledger"))))
    }
}
// ANCHOR_END: backend
