//! The contracts of the traits, as suites that any implementation runs.
//!
//! Each suite has a function `run`, and each clause of a contract is a function of its own, so that one of them can be looked
//! at alone. A clause that is broken panics with the contract's and its own name.
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

use std::{fmt::Display, time::Duration};

mod clock;
pub mod credential_source;
pub mod leadership;
pub mod ledger;
pub mod pod_identity;

pub use clock::SuspendableClock;

/// How often a condition is looked at that may take its time.
const POLL: Duration = Duration::from_millis(20);

/// One promise of one contract.
#[derive(Clone, Copy, Debug)]
struct Clause {
    contract: &'static str,
    name: &'static str,
}

impl Clause {
    /// Ends the test: the clause is broken.
    #[track_caller]
    fn broken(self, how: impl Display) -> ! {
        panic!("the contract of {} is broken, clause {}: {how}", self.contract, self.name)
    }

    #[track_caller]
    fn holds(self, holds: bool, how: impl Display) {
        if !holds {
            self.broken(how);
        }
    }

    /// The result of a call that has to succeed.
    #[track_caller]
    fn ok<T, E: Display>(self, call: &str, result: Result<T, E>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => self.broken(format_args!("{call} failed: {error}")),
        }
    }

    /// Looks until the condition holds, at most for `patience`.
    async fn eventually(self, patience: Duration, how: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + patience;
        while !condition().await {
            if tokio::time::Instant::now() >= deadline {
                self.broken(format_args!("{how}, even after {patience:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
async fn message_of_the_broken_clause(clause: impl Future<Output = ()>) -> String {
    use futures::FutureExt;

    let outcome = std::panic::AssertUnwindSafe(clause).catch_unwind().await;
    let panic = outcome.expect_err("the suite did not notice");
    panic.downcast_ref::<String>().expect("a message").clone()
}
