//! What a pod asks for, and how it is delivered: pure decisions over the pod's JSON.

use serde_json::Value;
use vdbi_core::{annotation::DatabaseRequest, ledger::EntryId, secret::Secret};

use crate::{patch::Patch, review::Denial};

mod plaintext;

pub use plaintext::Plaintext;

/// Decides what an admission does to a pod.
///
/// # Guarantees
///
/// - Pure: the same pod gives the same plan, and nothing is read or written elsewhere.
/// - Idempotent: the plan for a pod that carries the patch already is [`Plan::LeaveAlone`].
/// - Additive: a patch adds, and never removes or replaces what a user wrote.
pub trait MutationPolicy: Send + Sync + 'static {
    /// What to do with this pod.
    ///
    /// # Errors
    ///
    /// A [`Denial`] whose message tells the pod's author what to change.
    fn plan(&self, pod: &Value) -> Result<Plan, Denial>;

    /// The patch that delivers one grant for each database of the plan, in the plan's order.
    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant]) -> Patch;
}

/// What to do with a pod.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Admit it as it is.
    LeaveAlone {
        /// Shown to the user.
        warnings: Vec<String>,
    },
    /// Issue and deliver credentials.
    Inject(Injection),
}

/// Which credentials a pod gets.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Ordered by name, as the entries of the uuid annotation are.
    pub databases: Vec<DatabaseRequest>,
    /// Shown to the user.
    pub warnings: Vec<String>,
}

/// One credential on its way into a pod.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Its ledger entry.
    pub id: EntryId,
    /// The database user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}
