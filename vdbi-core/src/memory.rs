//! Embedded implementations that need no server: for the quickstart, and for the tests of whoever builds on the traits.
//!
//! [`MemorySource`] issues credentials and plays the database that accepts them, [`MemoryLedger`] keeps the books, and with
//! the feature `kubernetes` [`kubernetes::KubernetesApi`] is an API server for a real `kube::Client`. All three are handles:
//! a clone shares the state of its original. All three can be told to fail, to be slow, and to hold calls until the test is
//! ready for them.

mod control;
mod ledger;
mod source;

#[cfg(feature = "kubernetes")]
pub mod kubernetes;

pub use control::Hold;
pub use ledger::{LedgerOperation, MemoryLedger};
pub use source::{Lifetimes, MemorySource, SourceOperation};
