//! The contract of [`MutationPolicy`](crate::policy::MutationPolicy) as a test suite, for policies of your own.

pub mod mutation_policy;
