//! Placeholders that the node plugin replaces: the mode in which no secret reaches the Kubernetes API.

use jiff::Timestamp;
use serde_json::Value;
use vdbi_core::pod::ANNOTATION_PREFIX;

use super::{
    Grant, Injection, MutationPolicy, Plan,
    environment::{self, Wish, bad, name, selected},
};
use crate::{patch::Patch, review::Denial};

/// Puts placeholders where [`Plaintext`](super::Plaintext) would put credentials, and issues none.
///
/// The node plugin replaces them in a container's environment, not in its command line, into which the kubelet has expanded
/// `$(DBPASSWORD)` by then: a pod that has such a reference is denied.
#[derive(Clone, Debug)]
pub struct Placeholder {
    default_engine: String,
}

impl Placeholder {
    /// `default_engine` is the database secrets engine of pods without the annotation `cluster`.
    pub fn new(default_engine: impl Into<String>) -> Self {
        Self { default_engine: default_engine.into() }
    }
}

impl MutationPolicy for Placeholder {
    fn plan(&self, pod: &Value, now: Timestamp) -> Result<Plan, Denial> {
        Ok(match environment::wish(pod, &self.default_engine, now)? {
            Wish::Nothing { patch, warnings } => Plan::LeaveAlone { patch, warnings },
            Wish::Credentials(injection) => {
                refuse_references(pod, &injection)?;
                Plan::Reserve(injection)
            }
        })
    }

    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch {
        environment::patch(pod, injection, grants, now)
    }
}

fn refuse_references(pod: &Value, injection: &Injection) -> Result<(), Denial> {
    for (container, database) in selected(pod, injection) {
        for field in ["command", "args"] {
            let words = container[field].as_array().into_iter().flatten().filter_map(Value::as_str);
            for word in words {
                if let Some(variable) = database.variables().find(|variable| refers(word, variable)) {
                    return Err(bad(format!(
                        "container {} has $({variable}) in its {field}, where the credential is not available: read the \
                         environment variable in the application, or through a shell as \"${variable}\", or give the container \
                         no credential with {ANNOTATION_PREFIX}{}.containers",
                        name(container),
                        database.name
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Whether Kubernetes would expand `$(variable)` in a text; `$$` stands for a dollar.
fn refers(text: &str, variable: &str) -> bool {
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        rest = &rest[dollar + 1..];
        if let Some(escaped) = rest.strip_prefix('$') {
            rest = escaped;
        } else if rest
            .strip_prefix('(')
            .and_then(|rest| rest.strip_prefix(variable))
            .is_some_and(|rest| rest.starts_with(')'))
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(args: &[&str]) -> Result<Plan, Denial> {
        let pod = json!({
            "metadata": { "annotations": { "db-creds-injector.numberly.io/main.role": "app" } },
            "spec": { "containers": [{ "name": "web", "args": args }] },
        });
        Placeholder::new("database").plan(&pod, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_reference_in_the_command_line_is_refused_by_name() {
        let denial = plan(&["--password=$(DBPASSWORD)"]).unwrap_err();
        assert!(denial.message.contains("container web has $(DBPASSWORD) in its args"), "{denial}");
    }

    #[test]
    fn an_escaped_reference_and_one_to_something_else_are_none() {
        for argument in ["$$(DBPASSWORD)", "$(DBPASSWORD", "$(DBPASSWORDS)", "$DBPASSWORD", "$$$$(DBUSER)"] {
            assert!(matches!(plan(&[argument]), Ok(Plan::Reserve(_))), "{argument}");
        }
        assert!(plan(&["$$$(DBUSER)"]).is_err());
    }
}
