//! What a pod asks for, and how it is delivered: pure decisions over the pod's JSON.
//!
//! Both policies follow the annotations of [`vdbi_core::annotation`] and set the same variables: [`Plaintext`] to the
//! credentials themselves, [`Placeholder`] to texts that the node plugin replaces when it creates the container.
//!
//! A mutated pod carries its entries' ids and a mark, the time and a digest over ids and values. A second invocation within
//! five minutes recognises it and leaves the pod alone, whatever other webhooks did in between. Later the mark is that of a
//! copy (a restored backup, the manifest of a running pod), which gets credentials of its own in place of the old ones. A mark
//! that anybody forges spares them their credential and gains nothing.

use jiff::Timestamp;
use serde_json::Value;
use vdbi_core::{annotation::DatabaseRequest, ledger::EntryId, secret::Secret};

use crate::{patch::Patch, review::Denial};

mod environment;
mod mark;
mod placeholder;
mod plaintext;
mod tripwire;

pub use placeholder::{Placeholder, REQUIRED_PLUGINS};
pub use plaintext::Plaintext;

/// Decides what an admission does to a pod.
///
/// # Guarantees
///
/// - Pure: the same pod at the same time gives the same plan, and nothing is read or written elsewhere.
/// - Idempotent: the plan for a pod that carries the patch already is [`Plan::LeaveAlone`].
/// - Additive: a patch has only `add` operations, and what a user wrote stays, unless the user asked for its replacement.
/// - Traceable: a pod with credentials lists its ledger entries in the annotation [`UUID_ANNOTATION`](vdbi_core::pod::UUID_ANNOTATION),
///   in the plan's order.
///
/// # Assumptions
///
/// - `patch` gets the injection of a plan for the same pod, and as many grants as that has databases.
///
/// The suite `vdbi_webhook::testing::mutation_policy` (feature `testing`) checks this contract over any implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not decide what an admission does to a pod",
    note = "use `vdbi_webhook::policy::Plaintext` or `Placeholder`, or implement `vdbi_webhook::policy::MutationPolicy`: plan and patch"
)]
pub trait MutationPolicy: Send + Sync + 'static {
    /// What to do with this pod, given as the JSON that the API server sent. `now` is the time for whatever mark the policy leaves.
    ///
    /// # Errors
    ///
    /// A [`Denial`] whose message tells the pod's author what to change.
    fn plan(&self, pod: &Value, now: Timestamp) -> Result<Plan, Denial>;

    /// The patch that delivers one grant for each database of the plan, in the plan's order.
    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch;
}

/// What to do with a pod.
#[derive(Debug)]
#[non_exhaustive]
pub enum Plan {
    /// Admit it without credentials.
    LeaveAlone {
        /// What is set right in the pod all the same.
        patch: Patch,
        /// Shown to the user.
        warnings: Vec<String>,
    },
    /// Issue credentials and deliver them.
    Issue(Injection),
    /// Deliver placeholders; the node issues the credentials when it needs them.
    Reserve(Injection),
}

/// Which credentials a pod gets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Injection {
    /// Ordered by name, as the entries of the uuid annotation are.
    pub databases: Vec<DatabaseRequest>,
    /// Shown to the user.
    pub warnings: Vec<String>,
}

impl Injection {
    /// These, without a warning.
    pub fn new(databases: Vec<DatabaseRequest>) -> Self {
        Self { databases, warnings: Vec::new() }
    }
}

/// One credential on its way into a pod, or what stands in for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Its ledger entry.
    pub id: EntryId,
    /// The database user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

impl Grant {
    /// A credential under this ledger entry.
    pub fn new(id: EntryId, username: impl Into<String>, password: Secret) -> Self {
        Self { id, username: username.into(), password }
    }
}
