//! Placeholders that the node plugin replaces: the mode in which no secret reaches the Kubernetes API.

use jiff::Timestamp;
use serde_json::Value;
use vdbi_core::pod::ANNOTATION_PREFIX;

use super::{
    Grant, Injection, MutationPolicy, Plan,
    environment::{self, Wish, name, selected},
    tripwire,
};
use crate::{patch::Patch, review::Denial};

/// The annotation by which a pod asks containerd (from 2.2 on) for plugins without which its containers are not created. It has to
/// be enabled in containerd's configuration; elsewhere it has no effect.
pub const REQUIRED_PLUGINS: &str = "required-plugins.noderesource.dev";

/// Puts placeholders where [`Plaintext`](super::Plaintext) would put credentials, and issues none.
///
/// The node plugin replaces them in a container's environment, not in its command line, into which the kubelet has expanded
/// `$(DBPASSWORD)` by then: a pod that has such a reference is denied.
///
/// A [tripwire](vdbi_core::tripwire) keeps each such container from running where no plugin has done so.
#[derive(Clone, Debug)]
pub struct Placeholder {
    default_engine: String,
    tripwire: bool,
    required_plugin: Option<String>,
}

impl Placeholder {
    /// `default_engine` is the database secrets engine of pods without the annotation `cluster`.
    pub fn new(default_engine: impl Into<String>) -> Self {
        Self { default_engine: default_engine.into(), tripwire: true, required_plugin: None }
    }

    /// Without the tripwire: where no plugin is there, applications then start with placeholders.
    #[must_use]
    pub fn without_tripwire(self) -> Self {
        Self { tripwire: false, ..self }
    }

    /// Also has containerd insist on the plugin of this name, with the annotation [`REQUIRED_PLUGINS`].
    #[must_use]
    pub fn requiring(self, plugin: impl Into<String>) -> Self {
        Self { required_plugin: Some(plugin.into()), ..self }
    }

    /// The pod's required plugins with ours; `None` where it is among them.
    ///
    /// # Errors
    ///
    /// When what the pod's author wrote is no list.
    fn required(&self, pod: &Value) -> Result<Option<String>, Denial> {
        let Some(plugin) = &self.required_plugin else { return Ok(None) };
        let written = pod["metadata"]["annotations"][REQUIRED_PLUGINS].as_str().unwrap_or_default();
        let mut plugins: Vec<String> = match written.trim() {
            "" => Vec::new(),
            list => serde_json::from_str(list).map_err(|_| {
                Denial::bad_request(format!(
                    "annotation {REQUIRED_PLUGINS}: {list:?} is not a list of names in JSON, to which {plugin} could be added: write \
                     it like [\"name\"]"
                ))
            })?,
        };
        if plugins.contains(plugin) {
            return Ok(None);
        }
        plugins.push(plugin.clone());
        Ok(Some(serde_json::json!(plugins).to_string()))
    }
}

impl MutationPolicy for Placeholder {
    fn plan(&self, pod: &Value, now: Timestamp) -> Result<Plan, Denial> {
        Ok(match environment::wish(pod, &self.default_engine, now)? {
            Wish::Nothing { patch, warnings } => Plan::LeaveAlone { patch, warnings },
            Wish::Credentials(injection) => {
                refuse_references(pod, &injection)?;
                if self.tripwire {
                    tripwire::refuse_conflicts(pod, &injection)?;
                }
                self.required(pod)?;
                Plan::Reserve(injection)
            }
        })
    }

    fn patch(&self, pod: &Value, injection: &Injection, grants: &[Grant], now: Timestamp) -> Patch {
        let mut patch = environment::patch(pod, injection, grants, now);
        if self.tripwire {
            tripwire::add(pod, injection, &mut patch);
        }
        if let Ok(Some(plugins)) = self.required(pod) {
            patch.add(&["metadata", "annotations", REQUIRED_PLUGINS], plugins.into());
        }
        patch
    }
}

fn refuse_references(pod: &Value, injection: &Injection) -> Result<(), Denial> {
    for (container, database) in selected(pod, injection) {
        for field in ["command", "args"] {
            let words = container[field].as_array().into_iter().flatten().filter_map(Value::as_str);
            for word in words {
                if let Some(variable) = database.variables().find(|variable| refers(word, variable)) {
                    return Err(Denial::bad_request(format!(
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

    fn patched(policy: &Placeholder, pod: &Value) -> Value {
        let Plan::Reserve(injection) = policy.plan(pod, Timestamp::UNIX_EPOCH).unwrap() else { panic!() };
        let grants: Vec<Grant> = injection.databases.iter().map(|_| grant()).collect();
        let patch = policy.patch(pod, &injection, &grants, Timestamp::UNIX_EPOCH);
        let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
        let mut pod = pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }

    fn grant() -> Grant {
        let id = vdbi_core::ledger::EntryId::random();
        Grant { id, username: "u".into(), password: vdbi_core::secret::Secret::new("p") }
    }

    fn pod(annotations: &[(&str, &str)], spec: Value) -> Value {
        let mut all = serde_json::Map::new();
        all.insert("db-creds-injector.numberly.io/main.role".into(), "app".into());
        all.extend(annotations.iter().map(|&(key, value)| (key.to_owned(), value.into())));
        json!({ "metadata": { "annotations": all }, "spec": spec })
    }

    #[test]
    fn every_container_with_a_placeholder_gets_the_tripwire_and_no_other() {
        let selected = ("db-creds-injector.numberly.io/main.containers", "migrate,web");
        let mount = json!({ "name": "data", "mountPath": "/data" });
        let spec = json!({
            "initContainers": [{ "name": "migrate" }],
            "containers": [{ "name": "web", "volumeMounts": [mount] }, { "name": "side" }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        });
        let pod = patched(&Placeholder::new("database"), &pod(&[selected], spec));
        let spec = &pod["spec"];
        let tripwire = json!({ "name": "vdbi-tripwire", "mountPath": "/proc/uptime" });
        assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([tripwire]));
        assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount, tripwire]));
        assert_eq!(spec["containers"][1]["volumeMounts"], Value::Null);
        assert_eq!(spec["volumes"][1], json!({ "name": "vdbi-tripwire", "emptyDir": {} }));
        assert_eq!(pod["metadata"]["annotations"][REQUIRED_PLUGINS], Value::Null);
    }

    #[test]
    fn a_copy_of_a_pod_keeps_its_one_tripwire() {
        let replace = ("db-creds-injector.numberly.io/main.on-conflict", "replace");
        let once = patched(
            &Placeholder::new("database"),
            &pod(&[replace], json!({ "containers": [{ "name": "web" }] })),
        );
        let mut copy = once.clone();
        copy["metadata"]["annotations"]["db-creds-injector.numberly.io/injected"] = Value::Null;
        let twice = patched(&Placeholder::new("database"), &copy);
        assert_eq!(twice["spec"]["volumes"], once["spec"]["volumes"]);
        assert_eq!(
            twice["spec"]["containers"][0]["volumeMounts"],
            once["spec"]["containers"][0]["volumeMounts"]
        );
    }

    #[test]
    fn without_the_tripwire_nothing_is_mounted() {
        let policy = Placeholder::new("database").without_tripwire();
        let pod = patched(&policy, &pod(&[], json!({ "containers": [{ "name": "web" }] })));
        assert_eq!(pod["spec"]["volumes"], Value::Null);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], Value::Null);
    }

    #[test]
    fn what_takes_the_place_of_the_tripwire_is_refused() {
        let web = |mounts: Value| json!({ "containers": [{ "name": "web", "volumeMounts": mounts }] });
        let message = |spec| {
            Placeholder::new("database").plan(&pod(&[], spec), Timestamp::UNIX_EPOCH).unwrap_err().message
        };
        let elsewhere = message(web(json!([{ "name": "lxcfs", "mountPath": "/proc/uptime" }])));
        assert!(elsewhere.contains("container web mounts something at /proc/uptime"), "{elsewhere}");
        let moved = message(web(json!([{ "name": "vdbi-tripwire", "mountPath": "/x" }])));
        assert!(moved.contains("give the volume another name"), "{moved}");
        let volume = json!({ "name": "vdbi-tripwire", "hostPath": { "path": "/proc/uptime" } });
        let taken = message(json!({ "containers": [{ "name": "web" }], "volumes": [volume] }));
        assert!(taken.contains("vdbi-tripwire is the webhook's"), "{taken}");
    }

    #[test]
    fn the_plugin_is_added_to_those_that_the_pod_requires() {
        let policy = Placeholder::new("database").requiring("vdbi");
        let containers = json!({ "containers": [{ "name": "web" }] });
        for (written, expected) in
            [("", r#"["vdbi"]"#), (r#"["other"]"#, r#"["other","vdbi"]"#), (r#"["vdbi"]"#, r#"["vdbi"]"#)]
        {
            let pod = patched(&policy, &pod(&[(REQUIRED_PLUGINS, written)], containers.clone()));
            assert_eq!(pod["metadata"]["annotations"][REQUIRED_PLUGINS], expected);
        }
        let denial = policy.plan(&pod(&[(REQUIRED_PLUGINS, "other")], containers), Timestamp::UNIX_EPOCH);
        assert!(denial.unwrap_err().message.contains("not a list of names"));
    }
}
