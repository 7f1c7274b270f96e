//! What the annotations of the Agent Injector mean here (<https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations>).

/// What the Agent Injector's annotations begin with.
pub(crate) const PREFIX: &str = "vault.hashicorp.com/";

// ANCHOR: meaning
/// What becomes of an annotation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// A credential of this name.
    Secret(&'a str),
    /// It says something about the credentials, or whether there are any.
    Heeded,
    /// How an Agent runs and reaches Vault: without one it means nothing.
    OfAnAgent,
    /// The application would miss something. Why, and what to do.
    Unsupported(&'static str),
}
// ANCHOR_END: meaning

/// How the annotations begin that are an Agent's own affair.
const OF_AN_AGENT: [&str; 25] = [
    "agent-cache-",
    "agent-copy-volume-mounts",
    "agent-disable-",
    "agent-enable-quit",
    "agent-image",
    "agent-init-",
    "agent-json-patch",
    "agent-limits-",
    "agent-pre-populate",
    "agent-request-namespace",
    "agent-requests-",
    "agent-revoke-",
    "agent-run-as-",
    "agent-service-account-token-volume-name",
    "agent-set-security-context",
    "agent-telemetry",
    "auth-",
    "ca-",
    "client-",
    "go-max-procs",
    "log-",
    "preserve-secret-case",
    "proxy-address",
    "template-",
    "tls-",
];

/// How those begin that are about the files of an Agent.
const OF_FILES: [&str; 7] = [
    "agent-inject-command",
    "agent-inject-default-template",
    "agent-inject-file",
    "agent-inject-perms",
    "agent-inject-template",
    "error-on-missing-key",
    "secret-volume-path",
];

impl<'a> Meaning<'a> {
    /// Of the annotation with this key, without its prefix.
    pub(crate) fn of(key: &'a str) -> Self {
        let begins = |with: &[&str]| with.iter().any(|beginning| key.starts_with(beginning));
        match key {
            "agent-inject" | "agent-inject-containers" | "role" => Self::Heeded,
            "agent-inject-status" => Self::Unsupported(
                "the Vault Agent Injector has served this pod already: let only one of the two webhooks see it",
            ),
            _ if begins(&OF_AN_AGENT) => Self::OfAnAgent,
            _ if begins(&OF_FILES) => Self::Unsupported(
                "credentials come as environment variables and not in files: remove it, and name the variables with \
                 db-creds-injector.numberly.io/<name>.env-key-dbuser and .env-key-dbpassword, or have a connection string with \
                 .mode: uri, .env-key-uri and .template",
            ),
            _ => match key.strip_prefix("agent-inject-secret-") {
                Some(name) => Self::Secret(name),
                None => Self::Unsupported("it has no equivalent here: remove it"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_decided_about_is_unsupported() {
        for key in
            ["namespace", "service", "agent-configmap", "agent-inject-token", "agent-inject-of-tomorrow", ""]
        {
            assert!(matches!(Meaning::of(key), Meaning::Unsupported(_)), "{key}");
        }
    }

    #[test]
    fn a_template_is_about_files_and_how_templates_are_rendered_is_not() {
        assert!(
            matches!(Meaning::of("agent-inject-template-orders"), Meaning::Unsupported(why) if why.contains(".template"))
        );
        assert_eq!(Meaning::of("template-static-secret-render-interval"), Meaning::OfAnAgent);
    }
}
