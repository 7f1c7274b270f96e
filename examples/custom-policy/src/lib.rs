//! A mutation policy of one's own: a pod that is annotated for HashiCorp's Vault Agent Injector gets its database credentials from
//! vdbi, as environment variables, with no Agent in the pod.
//!
//! | annotation | what becomes of it |
//! |---|---|
//! | `vault.hashicorp.com/agent-inject` | without `true` the others mean nothing, as there |
//! | `vault.hashicorp.com/agent-inject-secret-<name>: <engine>/creds/<role>` | the database `<name>`, of that engine and role; a `.` in the name becomes a `-` |
//! | `vault.hashicorp.com/agent-inject-containers` | the containers that get the credentials |
//! | `vault.hashicorp.com/role` | a warning, where it is not the database role: vdbi logs in with an auth role of that name |
//! | how an Agent runs and reaches Vault, such as `agent-limits-cpu` | a warning: there is none |
//! | everything else: templates, files, commands, other paths | the pod is denied |
//! | vdbi's own, such as `db-creds-injector.numberly.io/<name>.env-key-dbuser` | as ever: they name the variables |

// ANCHOR: imports
mod agent;

use jiff::Timestamp;
use serde_json::Value;
use vdbi_core::pod::ANNOTATION_PREFIX;
use vdbi_webhook::{
    patch::Patch,
    policy::{Grant, Injection, MutationPolicy, Plan},
    review::Denial,
};

use agent::{Meaning, PREFIX};
// ANCHOR_END: imports

// ANCHOR: policy
/// Serves both dialects: the Agent Injector's is translated, and what `P` does with the translation happens to the pod.
#[derive(Clone, Debug)]
pub struct AgentDialect<P> {
    inner: P,
}

impl<P: MutationPolicy> AgentDialect<P> {
    /// Delivers as `inner` does.
    pub fn new(inner: P) -> Self {
        Self { inner }
    }
}

impl<P: MutationPolicy> MutationPolicy for AgentDialect<P> {
    fn plan(&self, pod: &Value, now: Timestamp) -> Result<Plan, Denial> {
        let Some(Translation { pod, warnings, .. }) = Translation::of(pod)? else {
            return self.inner.plan(pod, now);
        };
        let mut plan = self.inner.plan(&pod, now)?;
        if let Plan::Issue(injection) | Plan::Reserve(injection) = &mut plan {
            injection.warnings.extend(warnings);
        }
        Ok(plan)
    }

    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch {
        // What cannot be translated was denied, and gets no patch.
        let Ok(Some(Translation { pod, added, .. })) = Translation::of(pod) else {
            return self.inner.patch(pod, injection, grants, now);
        };
        let mut patch = self.inner.patch(&pod, injection, grants, now);
        // Into the pod as well: the node plugin reads it, and knows one dialect.
        for key in added {
            patch.add(&["metadata", "annotations", &key], pod["metadata"]["annotations"][&key].clone());
        }
        patch
    }
}
// ANCHOR_END: policy

// ANCHOR: translation
/// A pod in vdbi's own dialect.
struct Translation {
    pod: Value,
    /// The keys of the annotations that it has in addition.
    added: Vec<String>,
    warnings: Vec<String>,
}

impl Translation {
    /// `None` for a pod that does not ask the Agent Injector.
    fn of(pod: &Value) -> Result<Option<Self>, Denial> {
        let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let asked: Vec<(&str, &str)> = annotations
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str()?.trim())))
            .collect();
        let value = |key| asked.iter().find(|(other, _)| *other == key).map_or("", |(_, value)| value);
        match value("agent-inject").to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => {}
            "false" | "f" | "0" | "" => return Ok(None),
            other => return Err(denial("agent-inject", &format!("{other:?} is neither true nor false"))),
        }
        let mut translation = Self { pod: pod.clone(), added: Vec::new(), warnings: Vec::new() };
        for &(key, path) in &asked {
            match Meaning::of(key) {
                Meaning::Secret(name) => {
                    let name = name.replace('.', "-");
                    let role = translation.database(key, &name, path)?;
                    translation.set(key, format!("{name}.containers"), value("agent-inject-containers"))?;
                    if !["", role].contains(&value("role")) {
                        translation.warn(format!("role has no effect: {name} has the auth role {role}"));
                    }
                }
                Meaning::Heeded => {}
                Meaning::OfAnAgent => translation.warn(format!("{key} has no effect without a Vault Agent")),
                Meaning::Unsupported(why) => return Err(denial(key, why)),
            }
        }
        Ok(Some(translation))
    }

    /// Asks for a database; returns its role.
    fn database<'a>(&mut self, key: &str, name: &str, path: &'a str) -> Result<&'a str, Denial> {
        let parts = path.trim_matches('/').rsplit_once("/creds/");
        let (engine, role) = parts.filter(|(_, role)| !role.contains('/')).ok_or_else(|| {
            denial(key, &format!("{path:?} is not <engine>/creds/<role>, and no other path is served"))
        })?;
        self.set(key, "cluster".to_owned(), engine)?;
        self.set(key, format!("{name}.role"), role)?;
        Ok(role)
    }

    /// kubectl cuts a warning after 120 characters.
    fn warn(&mut self, about: String) {
        self.warnings.push(format!("annotation {about}"));
    }

    /// Adds one of vdbi's annotations on behalf of one of the Agent's; others of the pod have to agree.
    fn set(&mut self, on_behalf: &str, key: String, value: &str) -> Result<(), Denial> {
        let key = format!("{ANNOTATION_PREFIX}{key}");
        let annotations = &mut self.pod["metadata"]["annotations"];
        match annotations[&key].as_str() {
            _ if value.is_empty() => {}
            None => {
                annotations[&key] = value.into();
                self.added.push(key);
            }
            Some(other) if other != value => {
                return Err(denial(on_behalf, &format!("it means {key}: {value}, and another one {other}")));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

fn denial(key: &str, reason: &str) -> Denial {
    Denial::bad_request(format!("annotation {PREFIX}{key}: {reason}"))
}
// ANCHOR_END: translation
