use super::*;
use crate::credential::Advice;

const ROLE: Operation<'_> = Operation::ReadAuthRole { auth_path: "kubernetes", role: "app" };
const OUR_LOGIN: Operation<'_> = Operation::Login { auth_path: "kubernetes", role: "renewer" };
const POD_LOGIN: Operation<'_> = Operation::PodLogin { auth_path: "kubernetes", role: "app" };
const CREATE: Operation<'_> = Operation::CreateToken { token_role: Some("dbi-pod"), policy: "app" };
const ORPHAN: Operation<'_> = Operation::CreateToken { token_role: None, policy: "app" };
const CREDS: Operation<'_> = Operation::ReadCredentials { engine: "databases", role: "app" };
const LEDGER: Operation<'_> = Operation::Ledger { mount: "dbi" };

const ALL: [Operation<'_>; 13] = [
    OUR_LOGIN,
    Operation::RenewSession,
    Operation::EndSession,
    ROLE,
    POD_LOGIN,
    CREATE,
    ORPHAN,
    CREDS,
    Operation::RenewToken,
    Operation::RevokeToken,
    Operation::RenewLease,
    Operation::RevokeLease,
    LEDGER,
];

const BY_POLICY: &str = "1 error occurred:\n\t* permission denied\n\n";
const GONE_ON_VAULT: &str = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";

fn refusal(status: u16, error: &str) -> Refusal {
    let errors = if error.is_empty() { vec![] } else { vec![error.to_owned()] };
    Refusal { status, errors, policy: "path \"x\" { capabilities = [\"update\"] }".into() }
}

fn meaning(operation: Operation<'_>, status: u16, error: &str) -> SourceError {
    classify(operation, &refusal(status, error))
}

/// The table of errors, row by row; where Vault's wording differs, both.
#[test]
fn every_known_error_has_its_meaning_and_says_what_to_do() {
    use Operation::{RenewLease, RenewSession, RenewToken, RevokeLease, RevokeToken};
    let refused =
        "failed to renew entry: failed to connect to `user=x password=hunter2`: connect: connection refused";
    let rows: &[(Operation<'_>, u16, &str, &str, &str)] = &[
        (RenewLease, 400, "lease not found", "gone", "lease no longer exists"),
        (RenewLease, 400, "lease expired", "gone", "lease no longer exists"),
        (
            RenewLease,
            400,
            "lease is expired and has failed previous revocation attempts",
            "gone",
            "lease no longer exists",
        ),
        (RenewLease, 400, "failed to renew entry: past the max TTL, cannot renew", "gone", "max_ttl"),
        (
            RenewLease,
            400,
            "failed to renew entry: could not find role with name \"x\"",
            "misconfigured",
            "create it again",
        ),
        (RenewLease, 400, refused, "unavailable", "check that the database runs"),
        (
            RenewLease,
            400,
            "failed to renew entry: ERROR: role \"v\" does not exist (SQLSTATE 42704)",
            "gone",
            "database user",
        ),
        (RenewLease, 400, "failed to renew entry: something new", "unavailable", "something new"),
        (RenewLease, 400, "lease is not renewable", "misconfigured", "cannot be renewed"),
        (RenewLease, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (RevokeLease, 400, refused, "unavailable", "check that the database runs"),
        (RevokeLease, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (RevokeLease, 400, "lease not found", "gone", "lease"),
        (RevokeToken, 400, "token to revoke not found", "gone", "token"),
        (RevokeToken, 400, "1 error occurred:\n\t* invalid accessor\n\n", "gone", "token"),
        (RevokeToken, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (RenewToken, 400, "1 error occurred:\n\t* invalid accessor\n\n", "gone", "token"),
        (RenewToken, 403, "1 error occurred:\n\t* invalid accessor\n\n", "gone", "token"),
        (RenewToken, 400, "token not found", "gone", "token"),
        (RenewToken, 403, "permission denied", "gone", "token"),
        (RenewToken, 403, GONE_ON_VAULT, "gone", "token"),
        (RenewToken, 500, "role \"app\" does not exist during renewal", "misconfigured", "create it again"),
        (RenewToken, 400, "lease is not renewable", "misconfigured", "renewable service tokens"),
        (RenewToken, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (RenewSession, 403, "permission denied", "gone", "component's token"),
        (RenewSession, 403, GONE_ON_VAULT, "gone", "component's token"),
        (RenewSession, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (ROLE, 404, "", "invalid", "bao write auth/kubernetes/role/app"),
        (ROLE, 404, "no handler for route \"auth/k/role/app\"", "misconfigured", "vaultAuthPath"),
        (ROLE, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (ROLE, 403, "permission denied", "unavailable", "no longer accepts"),
        (
            OUR_LOGIN,
            403,
            "invalid audience (aud) claim: audience claim does not match",
            "misconfigured",
            "audience",
        ),
        (
            OUR_LOGIN,
            403,
            "service account name not authorized",
            "misconfigured",
            "bound_service_account_names",
        ),
        (OUR_LOGIN, 403, "namespace not authorized", "misconfigured", "bound_service_account_namespaces"),
        (OUR_LOGIN, 400, "invalid role name \"renewer\"", "misconfigured", "kubeRole"),
        (OUR_LOGIN, 403, "permission denied", "unavailable", "TokenReview"),
        (OUR_LOGIN, 404, "no handler for route \"auth/k/login\"", "misconfigured", "vaultAuthPath"),
        (OUR_LOGIN, 500, "could not load backend configuration", "misconfigured", "auth/kubernetes/config"),
        (OUR_LOGIN, 500, "something new", "unavailable", "something new"),
        (POD_LOGIN, 403, "invalid audience (aud) claim", "misconfigured", "tokenRequestAudiences"),
        (
            POD_LOGIN,
            403,
            "service account name not authorized",
            "denied",
            "bao write auth/kubernetes/role/app",
        ),
        (POD_LOGIN, 403, "namespace not authorized", "denied", "bao write auth/kubernetes/role/app"),
        (POD_LOGIN, 400, "invalid role name \"app\"", "invalid", "bao write auth/kubernetes/role/app"),
        (POD_LOGIN, 403, "permission denied", "unavailable", "TokenReview"),
        (CREATE, 400, "unknown role dbi-pod", "misconfigured", "tokenRole"),
        (
            CREATE,
            400,
            "token policies ([\"app\"]) must be subset of the role's allowed policies",
            "denied",
            "allowed_policies",
        ),
        (CREATE, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (CREATE, 403, "permission denied", "unavailable", "no longer accepts"),
        (ORPHAN, 400, "child policies must be subset of parent", "misconfigured", "sudo"),
        (
            ORPHAN,
            400,
            "root or sudo privileges required to create periodic token",
            "misconfigured",
            "tokenRole",
        ),
        (ORPHAN, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (CREDS, 400, "unknown role: app", "invalid", "has no role app"),
        (CREDS, 404, "no handler for route \"databases/creds/app\"", "invalid", "defaultEngine"),
        (CREDS, 403, BY_POLICY, "denied", "databases/creds/app"),
        (CREDS, 403, "permission denied", "unavailable", "standby"),
        (CREDS, 403, GONE_ON_VAULT, "unavailable", "standby"),
        (CREDS, 500, refused, "unavailable", "check that the database runs"),
        (
            CREDS,
            500,
            "1 error occurred:\n\t* \"app\" is not an allowed role\n\n",
            "misconfigured",
            "allowed_roles",
        ),
        (CREDS, 500, "failed to find entry for connection with name: \"pg\"", "misconfigured", "db_name"),
        (CREDS, 500, "ERROR: syntax error (SQLSTATE 42601)", "unavailable", "SQLSTATE 42601"),
        (LEDGER, 403, BY_POLICY, "misconfigured", "policy needs path \"x\""),
        (LEDGER, 404, "no handler for route \"dbi/data/x\"", "misconfigured", "vaultSecretName"),
        (LEDGER, 500, "something new", "unavailable", "something new"),
        (LEDGER, 400, "something new", "unavailable", "something new"),
    ];
    for &(operation, status, error, label, hint) in rows {
        let meaning = meaning(operation, status, error);
        assert_eq!(meaning.label(), label, "{status} {error}: {meaning}");
        let text = meaning.to_string();
        assert!(text.contains(hint), "{status} {error}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn trouble_of_the_server_is_worth_another_try_whatever_was_asked() {
    let rows = [
        (503, "Vault is sealed", "unseal it"),
        (500, "local node not active but active cluster node not found", "no active node"),
        (429, "request path \"x\": rate limit quota exceeded", "quota"),
        (502, "", "not available"),
        (504, "", "not available"),
    ];
    for operation in ALL {
        for (status, error, hint) in rows {
            let meaning = meaning(operation, status, error);
            assert_eq!(meaning.advice(), Advice::Retry, "{status} {error}: {meaning}");
            assert!(meaning.to_string().contains(hint), "{meaning}");
        }
    }
}

#[test]
fn a_dead_token_is_told_from_a_denial_by_policy() {
    for text in ["permission denied", GONE_ON_VAULT] {
        assert!(refusal(403, text).token_is_gone() && !refusal(403, text).is_denied_by_policy(), "{text}");
    }
    assert!(refusal(403, BY_POLICY).is_denied_by_policy() && !refusal(403, BY_POLICY).token_is_gone());
    assert!(!refusal(400, "permission denied").token_is_gone());
    assert!(!refusal(403, "namespace not authorized").token_is_gone());
}

#[test]
fn no_secret_that_a_server_quotes_is_repeated() {
    let leaky = [
        "failed to connect to `host=db user=root password=hunter2 database=x`: timeout",
        "cannot parse `postgresql://root:hunter2@db:5432/x`: bad",
        "Error 1045 (28000): Access denied for user 'hunter2'@'10.0.0.1'",
        "invalid token hvs.hunter2",
        "field \"password\": \"hunter2\" is wrong",
    ];
    for operation in ALL {
        for error in leaky {
            for status in [400, 403, 404, 500] {
                let refusal = refusal(status, error);
                let text = format!("{} {refusal:?}", classify(operation, &refusal));
                assert!(!text.contains("hunter2"), "{text}");
            }
        }
    }
}

#[test]
fn a_request_without_an_answer_may_be_tried_again() {
    let error = Failure::Unanswered("no answer".into()).meaning(Operation::RenewLease);
    assert!(matches!(error, SourceError::Unavailable(_)));
    let error = Failure::NoSession(SourceError::Misconfigured("role".into())).meaning(LEDGER);
    assert!(matches!(error, SourceError::Misconfigured(_)));
}
