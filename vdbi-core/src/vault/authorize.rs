//! Whether a pod's service account may have a credential, by what its auth role binds. The legacy way: Vault itself would
//! compare the same at a login as the pod.

use super::{
    access::Access,
    endpoint::{AuthRole, ReadAuthRole},
    error::Operation,
    path::Path,
};
use crate::credential::{CredentialRequest, SourceError};

// As the Go product's metric calls them.
const NO_POLICY: &str = "RoleNotInAssumeRole";
const NO_ACCOUNT: &str = "ServiceAccountNameNotInRole";
const NO_NAMESPACE: &str = "NamespaceNotInRole";

/// Why a pod may not have a credential.
#[derive(Debug)]
pub(super) struct Denial {
    /// For the metric.
    pub(super) cause: &'static str,
    /// For the user.
    pub(super) text: String,
}

/// Reads an auth role, with this component's token.
pub(super) async fn read_role(access: &Access, mount: &Path, role: &Path) -> Result<AuthRole, SourceError> {
    let operation = Operation::ReadAuthRole { auth_path: mount.as_str(), role: role.as_str() };
    let reply =
        access.call(&ReadAuthRole { mount, role }).await.map_err(|failure| failure.meaning(operation))?;
    reply
        .data
        .ok_or_else(|| SourceError::Unavailable("Vault answered an auth role without its content".into()))
}

/// Compares a pod with its auth role, in the order and with the globs of Vault's Kubernetes auth method. A denial names the
/// binding that is missing and how to add it, but not what other pods the role is for.
///
/// # Errors
///
/// The [`Denial`].
pub(super) fn permits(role: &AuthRole, mount: &Path, request: &CredentialRequest) -> Result<(), Denial> {
    let CredentialRequest { pod, role: name, .. } = request;
    let target = format!("auth/{mount}/role/{name}");
    let deny = |cause, what: String, field: &str, value: &str| {
        let text = format!("{what}: add it with `bao write {target} {field}=<the present ones>,{value}`");
        Err(Denial { cause, text })
    };
    // A token for it would open everything.
    if name == "root" {
        let text = "the role root is never given to a pod: name another one".to_owned();
        return Err(Denial { cause: NO_POLICY, text });
    }
    let policies = || role.token_policies.iter().chain(&role.policies).flatten();
    if !policies().any(|policy| policy == name) {
        return deny(NO_POLICY, format!("{target} does not carry the policy {name}"), "token_policies", name);
    }
    let account = &pod.service_account;
    if !binds(role.bound_service_account_names.as_deref(), account) {
        let what = format!("service account {account} is not bound by {target}");
        return deny(NO_ACCOUNT, what, "bound_service_account_names", account);
    }
    let namespace = &pod.namespace;
    if !binds(role.bound_service_account_namespaces.as_deref(), namespace) {
        let selector = role.bound_service_account_namespace_selector.as_deref().unwrap_or_default();
        let why =
            if selector.is_empty() { "" } else { " by name (its namespace selector is not evaluated here)" };
        let what = format!("namespace {namespace} is not bound by {target}{why}");
        return deny(NO_NAMESPACE, what, "bound_service_account_namespaces", namespace);
    }
    Ok(())
}

fn binds(patterns: Option<&[String]>, name: &str) -> bool {
    patterns.unwrap_or_default().iter().any(|pattern| matches(pattern, name))
}

/// Vault's glob: `*` stands for any text, also none, as often as it occurs; nothing else is special.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut remaining) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match remaining.split_once(part) {
            Some((_, after)) => remaining = after,
            None => return false,
        }
    }
    remaining.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodRef;

    fn role(names: &[&str], namespaces: &[&str]) -> AuthRole {
        let owned = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
        AuthRole {
            token_policies: owned(&["default", "app"]),
            bound_service_account_names: owned(names),
            bound_service_account_namespaces: owned(namespaces),
            ..AuthRole::default()
        }
    }

    fn request() -> CredentialRequest {
        CredentialRequest {
            pod: PodRef { namespace: "shop".into(), service_account: "app1".into(), ..PodRef::default() },
            database: "main".into(),
            engine: "databases".into(),
            role: "app".into(),
        }
    }

    fn denial(role: &AuthRole, request: &CredentialRequest) -> String {
        permits(role, &Path::mount("kubernetes").unwrap(), request).unwrap_err().text
    }

    #[test]
    fn globs_match_as_in_vault() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("*", "", true),
            ("app", "app", true),
            ("app", "app1", false),
            ("app*", "app1", true),
            ("app*", "app", true),
            ("*app", "my-app", true),
            ("*app", "apple", false),
            ("a*p", "a", false),
            ("a*a", "a", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*-*", "a-b", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a?p", "app", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_bound_service_account_is_permitted() {
        let mount = Path::mount("kubernetes").unwrap();
        for role in [role(&["app1"], &["shop"]), role(&["*"], &["sh*"]), role(&["x", "app*"], &["*"])] {
            permits(&role, &mount, &request()).unwrap();
        }
        let legacy =
            AuthRole { token_policies: None, policies: Some(vec!["app".into()]), ..role(&["*"], &["*"]) };
        permits(&legacy, &mount, &request()).unwrap();
    }

    #[test]
    fn a_denial_names_what_is_missing_and_nobody_else() {
        let text = denial(&role(&["other-tenant"], &["shop"]), &request());
        assert!(text.contains("service account app1"), "{text}");
        assert!(text.contains("bao write auth/kubernetes/role/app bound_service_account_names="), "{text}");
        assert!(!text.contains("other-tenant"), "{text}");

        let text = denial(&role(&["app1"], &["other-tenant"]), &request());
        assert!(
            text.contains("namespace shop") && text.contains("bound_service_account_namespaces="),
            "{text}"
        );

        let text = denial(&AuthRole { token_policies: None, ..role(&["*"], &["*"]) }, &request());
        assert!(text.contains("policy app") && text.contains("token_policies="), "{text}");
    }

    #[test]
    fn an_unevaluated_namespace_selector_is_named() {
        let selected =
            AuthRole { bound_service_account_namespace_selector: Some("{}".into()), ..role(&["app1"], &[]) };
        assert!(denial(&selected, &request()).contains("selector is not evaluated"));
    }

    #[test]
    fn nobody_gets_root() {
        let root = AuthRole { token_policies: Some(vec!["root".into()]), ..role(&["*"], &["*"]) };
        assert!(denial(&root, &CredentialRequest { role: "root".into(), ..request() }).contains("never"));
    }
}
