//! The kinds of objects that the API stores, each with its rules.

/// One kind of object.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resource {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    /// Whether `status` is written through the subresource only.
    pub(super) has_status: bool,
    /// Whether a PUT without a resourceVersion replaces whatever is there.
    pub(super) unconditional_update: bool,
    /// Whether a PUT creates what is not there.
    pub(super) create_on_update: bool,
}

const CORE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    kind: "",
    namespaced: true,
    has_status: false,
    unconditional_update: true,
    create_on_update: false,
};

pub(super) static PODS: Resource = Resource { plural: "pods", kind: "Pod", has_status: true, ..CORE };
pub(super) static NAMESPACES: Resource =
    Resource { plural: "namespaces", kind: "Namespace", namespaced: false, has_status: true, ..CORE };
pub(super) static SERVICE_ACCOUNTS: Resource =
    Resource { plural: "serviceaccounts", kind: "ServiceAccount", ..CORE };
pub(super) static LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    plural: "leases",
    kind: "Lease",
    unconditional_update: false,
    create_on_update: true,
    ..CORE
};
pub(super) static POD_DISRUPTION_BUDGETS: Resource = Resource {
    group: "policy",
    plural: "poddisruptionbudgets",
    kind: "PodDisruptionBudget",
    has_status: true,
    unconditional_update: false,
    ..CORE
};
static NODES: Resource =
    Resource { plural: "nodes", kind: "Node", namespaced: false, has_status: true, ..CORE };
static EVENTS: Resource = Resource { plural: "events", kind: "Event", create_on_update: true, ..CORE };
static NEW_EVENTS: Resource =
    Resource { group: "events.k8s.io", plural: "events", kind: "Event", create_on_update: true, ..CORE };

static ALL: [&Resource; 8] =
    [&PODS, &NAMESPACES, &SERVICE_ACCOUNTS, &LEASES, &POD_DISRUPTION_BUDGETS, &NODES, &EVENTS, &NEW_EVENTS];

impl Resource {
    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        let wanted = (group, version, plural);
        ALL.into_iter().find(|resource| (resource.group, resource.version, resource.plural) == wanted)
    }

    /// `v1`, or `coordination.k8s.io/v1`.
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The name that errors give it: `pods`, or `leases.coordination.k8s.io`.
    pub(super) fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The name that other errors give it: `Pod`, or `Lease.coordination.k8s.io`.
    pub(super) fn qualified_kind(&self) -> String {
        match self.group {
            "" => self.kind.to_owned(),
            group => format!("{}.{group}", self.kind),
        }
    }
}
