//! The table of known errors.

use super::{Operation, Refusal};
use crate::credential::SourceError;

/// What a server's error means for an operation. The status alone says little: a database that is down is 400, 500 or 202,
/// an auth role that was deleted is 500. Texts are those of OpenBao 2.7 and Vault 1.21.
pub(super) fn classify(operation: Operation<'_>, refusal: &Refusal) -> SourceError {
    use SourceError::{Denied, Gone, Invalid, Misconfigured, Unavailable};
    if let Some(error) = server_trouble(refusal) {
        return error;
    }
    let says = |text| refusal.says(text);
    let detail = refusal.excerpt();
    match operation {
        Operation::Login { auth_path, role } => login(refusal, auth_path, role, Whose::Ours),
        Operation::PodLogin { auth_path, role } => login(refusal, auth_path, role, Whose::Pod),
        Operation::RenewSession | Operation::EndSession => {
            if refusal.token_is_gone() || says("token not found") {
                Gone("this component's token no longer exists".into())
            } else {
                own(refusal, "cannot keep this component's session")
            }
        }
        Operation::ReadAuthRole { auth_path, role } => match refusal.status {
            404 if says("no handler for route") => not_mounted("vaultAuthPath", auth_path),
            404 => Invalid(format!(
                "there is no auth role {role} at auth/{auth_path}: name an existing one in the role annotation, or create \
                 it with `bao write auth/{auth_path}/role/{role} ..`"
            )),
            _ => own(refusal, "cannot read the pod's auth role"),
        },
        Operation::CreateToken { token_role: Some(token_role), policy } => {
            if says("unknown role") {
                Misconfigured(format!(
                    "there is no token role {token_role}: create it with `bao write auth/token/roles/{token_role} \
                     allowed_policies={policy} orphan=true ..`, or change tokenRole"
                ))
            } else if says("must be subset") {
                Denied(format!(
                    "token role {token_role} does not allow policy {policy}: add it to its allowed_policies with `bao \
                     write auth/token/roles/{token_role} allowed_policies=..`"
                ))
            } else {
                own(refusal, "cannot create the pod's token")
            }
        }
        Operation::CreateToken { token_role: None, policy } => {
            if says("must be subset") || says("sudo") {
                Misconfigured(format!(
                    "this component may not create orphan tokens with policy {policy}: set tokenRole, or give its policy \
                     sudo on auth/token/create-orphan"
                ))
            } else {
                own(refusal, "cannot create the pod's token")
            }
        }
        Operation::ReadCredentials { engine, role } => {
            if says("unknown role") {
                Invalid(format!(
                    "database engine {engine} has no role {role}: create it, or correct the annotation"
                ))
            } else if refusal.status == 404 {
                Invalid(format!(
                    "there is no database engine at {engine}: correct the cluster annotation or defaultEngine"
                ))
            } else if says("is not an allowed role") || says("failed to find entry for connection") {
                Misconfigured(format!(
                    "database engine {engine} does not let role {role} use its connection: see allowed_roles of \
                     {engine}/config, and db_name of {engine}/roles/{role}"
                ))
            } else if refusal.is_denied_by_policy() {
                Denied(format!(
                    "the pod's token may not read {engine}/creds/{role}; its policy needs {}",
                    refusal.policy
                ))
            } else if refusal.token_is_gone() {
                Unavailable("Vault does not know the pod's token; a standby may lag behind".into())
            } else {
                database(refusal, &format!("database engine {engine}"))
            }
        }
        Operation::RenewToken => {
            if says("invalid accessor") || says("token not found") || refusal.token_is_gone() {
                Gone("the credential's token no longer exists".into())
            } else if says("does not exist during renewal") {
                Misconfigured(
                    "the auth role of the credential's token was deleted: create it again, or the credential ends with \
                     its token"
                        .into(),
                )
            } else if says("not renewable") {
                Misconfigured(
                    "the credential's token cannot be renewed: its auth role or token role must issue renewable service \
                     tokens"
                        .into(),
                )
            } else {
                own(refusal, "cannot renew the credential's token")
            }
        }
        Operation::RevokeToken => {
            if refusal.says_any(&["invalid accessor", "token not found", "token to revoke not found"])
                || refusal.token_is_gone()
            {
                Gone("the credential's token no longer exists".into())
            } else {
                own(refusal, "cannot revoke the credential's token")
            }
        }
        Operation::RenewLease => {
            if refusal.says_any(&["lease not found", "lease expired", "lease is expired", "invalid lease"]) {
                Gone("the credential's lease no longer exists".into())
            } else if says("past the max TTL") {
                Gone("the credential's lease has reached its maximum: max_ttl of its database role".into())
            } else if says("could not find role") {
                Misconfigured(
                    "the database role of the credential was deleted: create it again before the lease ends"
                        .into(),
                )
            } else if says("42704") {
                Gone("the credential's database user no longer exists".into())
            } else if says("not renewable") {
                Misconfigured(
                    "the credential's lease cannot be renewed: restart the pod before it ends, and have its engine issue \
                     renewable leases"
                        .into(),
                )
            } else if refusal.status == 403 {
                own(refusal, "cannot renew the credential's lease")
            } else {
                database(refusal, "the database engine")
            }
        }
        Operation::RevokeLease => {
            if refusal.says_any(&["lease not found", "invalid lease"]) {
                Gone("the credential's lease no longer exists".into())
            } else if refusal.status == 403 {
                own(refusal, "cannot revoke the credential's lease")
            } else {
                database(refusal, "the database engine")
            }
        }
        Operation::Ledger { mount } => match refusal.status {
            404 if says("no handler for route") => not_mounted("vaultSecretName", mount),
            500.. => Unavailable(format!("Vault failed at the ledger, and its log says why: {detail}")),
            _ => own(refusal, "cannot use the ledger"),
        },
    }
}

/// Trouble of the server as a whole, whatever was asked.
pub(super) fn server_trouble(refusal: &Refusal) -> Option<SourceError> {
    let text = if refusal.says("Vault is sealed") || refusal.says("is sealed") {
        "Vault is sealed: unseal it"
    } else if refusal.says("local node not active") {
        "Vault has no active node: look at its cluster"
    } else {
        match refusal.status {
            429 => "Vault's rate limit quota is exceeded: raise it, or lower this component's rate",
            502..=504 => "Vault is not available: see whether it runs, and what lies between",
            408 | 412 => "Vault is busy, or a standby of it lags behind: the next attempt may pass",
            _ => return None,
        }
    };
    Some(SourceError::Unavailable(text.into()))
}

/// Whose login it is.
#[derive(Clone, Copy)]
enum Whose {
    Ours,
    Pod,
}

fn login(refusal: &Refusal, auth_path: &str, role: &str, whose: Whose) -> SourceError {
    use SourceError::{Denied, Invalid, Misconfigured, Unavailable};
    let target = format!("auth/{auth_path}/role/{role}");
    let binding = |what: &str, field: &str| {
        let text = format!("{what} is not bound by {target}: add it with `bao write {target} {field}=..`");
        match whose {
            Whose::Ours => Misconfigured(format!("this component cannot log in: its {text}")),
            Whose::Pod => Denied(format!("the pod's {text}")),
        }
    };
    if refusal.says("service account name not authorized") {
        binding("service account", "bound_service_account_names")
    } else if refusal.says("namespace not authorized") {
        binding("namespace", "bound_service_account_namespaces")
    } else if refusal.says("audience") {
        let key = match whose {
            Whose::Ours => "the audience of its service account token",
            Whose::Pod => "tokenRequestAudiences",
        };
        Misconfigured(format!("the token's audience is not the one of {target}: change the role's, or {key}"))
    } else if refusal.says("invalid role name") {
        match whose {
            Whose::Ours => Misconfigured(format!("there is no {target}: create it, or change kubeRole")),
            Whose::Pod => Invalid(format!(
                "there is no {target}: name an existing role in the role annotation, or create it with `bao write {target} \
                 ..`"
            )),
        }
    } else if refusal.says("no handler for route") {
        not_mounted("vaultAuthPath", auth_path)
    } else if refusal.says("could not load backend configuration") {
        Misconfigured(format!(
            "auth/{auth_path} is not configured: run `bao write auth/{auth_path}/config ..`"
        ))
    } else if refusal.status == 403 {
        // Vault hides the reason, which may pass: its TokenReview failed.
        let subject = match whose {
            Whose::Ours => "this component's service account token",
            Whose::Pod => "the pod's service account token",
        };
        Unavailable(format!(
            "Vault did not accept {subject} at auth/{auth_path}: it is expired or of another cluster, its service account is \
             gone, or Vault's TokenReview failed; Vault's log says which"
        ))
    } else {
        Unavailable(format!("the login at {target} failed, and Vault's log says why: {}", refusal.excerpt()))
    }
}

/// An error about what this component itself did with its own token.
fn own(refusal: &Refusal, what: &str) -> SourceError {
    if refusal.is_denied_by_policy() {
        SourceError::Misconfigured(format!("{what}: this component's policy needs {}", refusal.policy))
    } else if refusal.token_is_gone() {
        SourceError::Unavailable(format!("{what}: Vault no longer accepts this component's token"))
    } else {
        SourceError::Unavailable(format!("{what}: {}", refusal.excerpt()))
    }
}

fn not_mounted(key: &str, mount: &str) -> SourceError {
    SourceError::Misconfigured(format!("nothing is mounted at {mount}: correct {key}, or enable it"))
}

fn database(refusal: &Refusal, engine: &str) -> SourceError {
    const UNREACHABLE: [&str; 8] = [
        "connection refused",
        "failed to connect",
        "no such host",
        "no route to host",
        "i/o timeout",
        "connection reset",
        "deadline exceeded",
        "unexpected EOF",
    ];
    let detail = refusal.excerpt();
    SourceError::Unavailable(if refusal.says_any(&UNREACHABLE) {
        format!("{engine} cannot reach its database ({detail}): check that the database runs")
    } else {
        format!("{engine} failed, and Vault's log says why: {detail}")
    })
}
