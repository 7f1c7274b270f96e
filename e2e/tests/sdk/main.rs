//! The examples of the SDK guide over real servers: what somebody builds with the crates.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod custom_policy;
mod custom_source;
mod embed_in_operator;
