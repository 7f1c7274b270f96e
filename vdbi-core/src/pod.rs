//! Which pod something is about.

use std::fmt;

/// The prefix of every annotation that this project reads or writes.
pub const ANNOTATION_PREFIX: &str = "db-creds-injector.numberly.io/";

/// The annotation that names a pod's ledger entries: a comma-separated list, one for each database, ordered by the
/// database's name.
pub const UUID_ANNOTATION: &str = "db-creds-injector.numberly.io/uuid";

/// The annotation by which a second invocation of the webhook knows its own work: see `vdbi_webhook::policy`.
pub const MARK_ANNOTATION: &str = "db-creds-injector.numberly.io/injected";

/// The annotation by which a pod asks for another credential before its own ends: see
/// [`annotation::Rotation`](crate::annotation::Rotation).
pub const ROTATION_ANNOTATION: &str = "db-creds-injector.numberly.io/rotation";

/// The service account of a pod that names none (the API server's own default).
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A pod as far as it is known: at admission the API server has not given it a uid yet, and a pod of a controller may not
/// have a name.
///
/// Write one with `..PodRef::default()` for what is not known: more may be known one day.
///
/// ```
/// use vdbi_core::pod::PodRef;
///
/// let pod = PodRef { namespace: "shop".into(), service_account: "web".into(), ..PodRef::default() };
/// assert_eq!(pod.to_string(), "shop/(name to be generated)");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// The namespace; of an admission the request's, which the API server vouches for.
    pub namespace: String,
    /// The name, unless the API server has yet to generate it.
    pub name: Option<String>,
    /// The uid, once the pod is stored.
    pub uid: Option<String>,
    /// The service account that the pod runs as.
    pub service_account: String,
    /// The node, once the pod is bound.
    pub node: Option<String>,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name.as_deref().unwrap_or("(name to be generated)"))
    }
}
