//! The life of a credential after its delivery: renewed while its pod lives, revoked when the pod is done, each by one
//! elected leader.
//!
//! [`election::LeaseElection`] implements leadership over a Kubernetes Lease. [`renewer::Renewer`] and [`revoker::Revoker`]
//! are the work that a leader does; both decide with pure functions ([`renewer::plan`], [`revoker::compare`]) and act under
//! the [`Term`](vdbi_core::leadership::Term) they are given. A large ledger is divided into [`shard`]s, each with a leader of its own
//! ([`election::Elections`]).
//! [`rotation`] is the renewer's: it has pods replaced whose credential no renewal takes further.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub mod budget;
pub mod election;
pub mod events;
pub mod pods;
pub mod renewer;
pub mod revoker;
pub mod rotation;
pub mod shard;

mod tally;
