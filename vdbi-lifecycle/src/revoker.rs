//! Ends credentials whose pods are done.

mod compare;
pub mod metrics;
mod queue;

mod run;

pub use compare::Rules;
pub use run::{Revoker, Settings};
