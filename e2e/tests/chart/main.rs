//! The Helm chart: what it renders, what it refuses, what a Kubernetes API server says of it, and what its policies do there.
//!
//! `VDBI_WRITE_DOCS=1 cargo test -p e2e --test chart` writes what is derived anew: the snapshots, the part of
//! `values.schema.json` and the list of keys that come from the binaries' configuration, and the table in `docs/chart.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod apiserver;
mod configuration;
mod documents;
mod examples;
mod helm;
mod objects;
mod policies;
mod refusals;
mod snapshots;
