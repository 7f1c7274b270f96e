use serde_json::{Value, json};

use super::{Component, DatabaseAccess};

/// The service account with which OpenBao asks the API server whether a token is genuine.
pub(super) const REVIEWER: &str = "token-reviewer";

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// The service account of OpenBao, which may review tokens and nothing else.
pub(super) fn reviewer(access: &DatabaseAccess) -> [Value; 2] {
    [
        service_account(access, REVIEWER),
        cluster_binding(access, REVIEWER, &format!("{}-{REVIEWER}", access.release), "system:auth-delegator"),
    ]
}

/// Service accounts, roles and bindings: the least that each component needs.
pub(super) fn components(access: &DatabaseAccess) -> Vec<Value> {
    let mut objects = Vec::new();
    for component in Component::ALL {
        let name = access.component_service_account(component);
        objects.push(service_account(access, &name));
        objects.push(json!({
            "apiVersion": RBAC,
            "kind": "ClusterRole",
            "metadata": { "name": name },
            "rules": component.cluster_rules(),
        }));
        objects.push(cluster_binding(access, &name, &name, &name));
        if component.elects() {
            objects.extend(leader_election(access, component, &name));
        }
    }
    objects
}

impl Component {
    /// The rules of its ClusterRole: the least with which everything here works.
    #[must_use]
    pub fn cluster_rules(self) -> Value {
        // The uid of kube-system stands for the cluster.
        let identity = json!({ "apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"] });
        match self {
            Self::Injector => {
                json!([identity, { "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"] }])
            }
            Self::Renewer => json!([
                identity,
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] },
                { "apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"] },
                { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
            ]),
            Self::Revoker => {
                json!([identity, { "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] }])
            }
            Self::Nri => json!([
                identity,
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] },
                { "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"] },
                { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] },
            ]),
        }
    }

    /// The rules of its Role in the release's namespace; none for a component without an election.
    #[must_use]
    pub fn namespaced_rules(self) -> Value {
        if !self.elects() {
            return json!([]);
        }
        json!([{
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update", "watch"],
        }])
    }
}

fn leader_election(access: &DatabaseAccess, component: Component, name: &str) -> [Value; 2] {
    let metadata = json!({ "name": name, "namespace": access.system_namespace });
    [
        json!({
            "apiVersion": RBAC,
            "kind": "Role",
            "metadata": metadata,
            "rules": component.namespaced_rules(),
        }),
        json!({
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [subject(access, name)],
        }),
    ]
}

fn service_account(access: &DatabaseAccess, name: &str) -> Value {
    let metadata = json!({ "name": name, "namespace": access.system_namespace });
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })
}

fn cluster_binding(access: &DatabaseAccess, account: &str, name: &str, role: &str) -> Value {
    json!({
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [subject(access, account)],
    })
}

fn subject(access: &DatabaseAccess, account: &str) -> Value {
    json!({ "kind": "ServiceAccount", "name": account, "namespace": access.system_namespace })
}
