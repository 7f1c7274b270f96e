//! The main job over kube-apiserver, etcd, OpenBao and PostgreSQL: a pod's credential from its issue to its end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod failover;
mod health;
mod life;
mod outages;
mod refusals;
mod sharding;
mod takeover;
