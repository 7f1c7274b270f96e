//! The mutating admission webhook of vdbi: a labelled pod comes in, its database credentials are issued, entered into the
//! ledger and patched into its containers.
//!
//! [`policy::MutationPolicy`] decides what a pod asks for and how it is delivered, and performs no I/O;
//! [`admit::Admission`] drives one admission from there to its answer within one deadline; [`server`] speaks
//! AdmissionReview v1 over TLS.
//!
//! An admission that fails, that outlasts its deadline or whose client goes away leaves nothing behind: what was issued by
//! then is revoked.

pub mod admit;
pub mod metrics;
pub mod patch;
pub mod policy;
pub mod review;
pub mod server;
pub mod tls;

mod queue;
mod undelivered;
