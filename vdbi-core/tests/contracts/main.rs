//! The contract suites from outside: each over an implementation that keeps its contract, and over wrong ones, at least one for each
//! clause, which break that clause and no other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod credential_source;
mod leadership;
mod ledger;
mod pod_identity;
mod wrong;
