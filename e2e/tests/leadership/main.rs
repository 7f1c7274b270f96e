//! The election over a real kube-apiserver and etcd: frozen, restarted, and shared with candidates of another make.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod candidate;
mod outages;
mod peers;
mod processes;
mod rights;
