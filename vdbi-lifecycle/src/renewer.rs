//! Keeps credentials alive while they are in the ledger.

pub mod metrics;
pub mod plan;

mod run;

pub use run::{Renewer, Settings};
