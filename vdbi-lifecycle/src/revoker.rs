//! Ends credentials whose pods are done.

pub mod compare;
pub mod metrics;

mod run;

pub use run::{Revoker, Settings};
