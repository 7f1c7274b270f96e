//! Rules, dashboard and their page: what they say of each other, what promtool says of the rules, and a real Prometheus over a real
//! release.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod files;
mod panels;
mod picture;
mod promql;
mod reference;
mod release;
mod rules;
