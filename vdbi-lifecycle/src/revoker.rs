//! Ends credentials whose pods are done.

pub mod compare;
pub mod metrics;
pub mod queue;

mod run;

pub use run::{Revoker, Settings};
