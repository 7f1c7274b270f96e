use super::{Component, DatabaseAccess};

/// What an application's token may do: get a credential.
pub(super) fn application(access: &DatabaseAccess) -> String {
    let DatabaseAccess { engine, role, .. } = access;
    format!("path \"{engine}/creds/{role}\" {{ capabilities = [\"read\"] }}\n")
}

/// The least that a component needs, in every mode; whatever is not named is denied.
pub(super) fn component(access: &DatabaseAccess, component: Component) -> String {
    let own = match component {
        Component::Injector => injector(access),
        Component::Renewer => renewer(access),
        Component::Revoker => revoker(access),
        Component::Nri => node_plugin(access),
    };
    format!("path \"auth/token/renew-self\" {{ capabilities = [\"update\"] }}\n{own}")
}

fn injector(access: &DatabaseAccess) -> String {
    let DatabaseAccess { mount, prefix, token_role, .. } = access;
    let mut policy = format!(
        r#"
path "auth/kubernetes/role/+" {{ capabilities = ["read"] }}
path "auth/token/create/{token_role}" {{ capabilities = ["update"] }}
path "{mount}/data/{prefix}/+" {{ capabilities = ["create", "update"] }}
path "auth/token/revoke-accessor" {{ capabilities = ["update"] }}
"#
    );
    if access.create_orphan {
        policy += "path \"auth/token/create-orphan\" { capabilities = [\"update\", \"sudo\"] }\n";
    }
    policy
}

/// What the webhook needs to issue, and to see whether a credential lives when its container starts again.
fn node_plugin(access: &DatabaseAccess) -> String {
    injector(access) + &renewal(access)
}

fn renewer(access: &DatabaseAccess) -> String {
    let DatabaseAccess { mount, prefix, .. } = access;
    format!(
        r#"
path "{mount}/metadata/{prefix}/" {{ capabilities = ["list"] }}
path "{mount}/detailed-metadata/{prefix}/" {{ capabilities = ["list"] }}
path "{mount}/data/{prefix}/+" {{ capabilities = ["read"] }}
path "auth/token/renew-accessor" {{ capabilities = ["update"] }}
"#
    ) + &renewal(access)
}

fn renewal(access: &DatabaseAccess) -> String {
    let DatabaseAccess { engine, .. } = access;
    format!(
        r#"
path "sys/leases/renew" {{
  capabilities = ["update"]
  allowed_parameters = {{ "lease_id" = ["{engine}/creds/*"], "increment" = [] }}
}}
"#
    )
}

fn revoker(access: &DatabaseAccess) -> String {
    let DatabaseAccess { mount, prefix, engine, .. } = access;
    format!(
        r#"
path "{mount}/metadata/{prefix}/" {{ capabilities = ["list"] }}
path "{mount}/detailed-metadata/{prefix}/" {{ capabilities = ["list"] }}
path "{mount}/data/{prefix}/+" {{ capabilities = ["read", "update"] }}
path "{mount}/metadata/{prefix}/+" {{ capabilities = ["patch", "delete"] }}
path "auth/token/revoke-accessor" {{ capabilities = ["update"] }}
path "sys/leases/revoke" {{
  capabilities = ["update"]
  allowed_parameters = {{ "lease_id" = ["{engine}/creds/*"], "sync" = [] }}
}}
path "sys/leases/lookup" {{ capabilities = ["update"] }}
"#
    )
}
