//! The contracts of the traits, as suites that any implementation runs.
//!
//! Each suite is a module with a trait `Fixture`, by which a test tells what it knows about its set-up, and a function for each
//! clause of the contract. `run` checks all of them and panics at the first that is broken; `broken` checks all of them and tells
//! which are broken; `CLAUSES` are their names. A clause that is broken panics with the contract's and its own name.
//!
#![cfg_attr(feature = "memory", doc = "```")]
#![cfg_attr(not(feature = "memory"), doc = "```ignore")]
//! # use vdbi_core::{memory::MemoryLedger, testing};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! testing::ledger::run(&MemoryLedger::new()).await;
//! # }
//! ```
//!
//! The suites use tokio's clock and nothing else to wait: paused time makes them quick over an implementation in memory, and
//! they are as fit for a real server. Where a contract grants an implementation some time, they look again and again until
//! it is over.
//!
//! Each clause asserts its own promise and leaves those of the others to them, so that an implementation with one mistake breaks one
//! clause, wherever that is possible.
//!
//! [`Clause`] and [`suite!`](crate::suite) are what the suites are made of, for contracts of your own.

use std::time::Duration;

mod clause;
mod clock;
pub mod credential_source;
pub mod leadership;
pub mod ledger;
pub mod pod_identity;

pub use crate::suite;
pub use clause::{Broken, Clause};
pub use clock::SuspendableClock;

/// How often a condition is looked at that may take its time.
const POLL: Duration = Duration::from_millis(20);
