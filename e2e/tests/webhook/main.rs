//! The admission webhook over kube-apiserver, OpenBao and PostgreSQL: what an admission webhook has to prove.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod authority;
mod callers;
mod cost;
mod failures;
mod mutation;
mod protocol;
mod rollout;
