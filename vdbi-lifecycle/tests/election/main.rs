//! The election over the embedded Kubernetes API, with paused time: what client-go's own tests check, what has gone wrong in
//! other implementations, and what an election shows of itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod cluster;
mod contract;
mod draining;
mod faults;
mod handover;
mod health;
mod metrics;
mod overrun;
mod shards;
