//! What a pod needs of its node: which credentials, and which placeholders they stand behind. Pure: the pod's object in, demand out.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use thiserror::Error;
use vdbi_core::{
    annotation::{self, DatabaseRequest, Delivery, Outcome, Template, parse_uuids},
    credential::CredentialRequest,
    ledger::EntryId,
    placeholder::{PREFIX, Placeholder},
    pod::{DEFAULT_SERVICE_ACCOUNT, PodRef, UUID_ANNOTATION},
    secret::Secret,
};

/// What one pod needs.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// The pod, with name, uid and node, as the API server knows it.
    pub(crate) pod: PodRef,
    /// At least one.
    pub(crate) databases: Vec<Wanted>,
}

/// One credential that a pod needs.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Where its entry goes, if nobody is there. Anybody with edit rights may have written it.
    pub(crate) id: EntryId,
    /// What to issue.
    pub(crate) request: CredentialRequest,
    /// What stands for the user's name.
    pub(crate) user: BTreeSet<Placeholder>,
    /// What stands for the password.
    pub(crate) password: BTreeSet<Placeholder>,
}

/// Why a pod's demand is not followed. Its containers are not created.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum DemandError {
    /// Its annotations cannot be followed.
    #[error(transparent)]
    Annotations(#[from] annotation::Error),
    /// A placeholder cannot be two things.
    #[error("a placeholder of database {database} stands for something else too: let the webhook write them")]
    Ambiguous {
        /// The database.
        database: String,
    },
}

impl Demand {
    /// Reads it from the pod. `None` when it needs nothing: it has no placeholder where its annotations would have the webhook write
    /// one. `default_engine` serves pods without the annotation `cluster`.
    ///
    /// # Errors
    ///
    /// See [`DemandError`].
    pub(crate) fn of(pod: &Pod, default_engine: &str) -> Result<Option<Self>, DemandError> {
        if !has_placeholders(pod) {
            return Ok(None);
        }
        let Outcome::Inject(asked) = annotation::parse(pod.annotations(), default_engine)? else {
            return Ok(None);
        };
        let reference = pod_ref(pod);
        let listed = pod.annotations().get(UUID_ANNOTATION).map(|ids| parse_uuids(ids)).unwrap_or_default();
        let mut ids = (listed.len() == asked.databases.len()).then_some(listed).into_iter().flatten();
        let mut databases: Vec<Wanted> = Vec::new();
        for database in &asked.databases {
            let id = ids.next().unwrap_or_else(EntryId::random);
            let (user, password) = placeholders(pod, database);
            if user.is_empty() && password.is_empty() {
                continue;
            }
            let earlier = databases.iter().flat_map(|wanted| wanted.user.iter().chain(&wanted.password));
            let taken: BTreeSet<Placeholder> = earlier.copied().collect();
            let is_ambiguous =
                !user.is_disjoint(&password) || !taken.is_disjoint(&user) || !taken.is_disjoint(&password);
            if is_ambiguous {
                return Err(DemandError::Ambiguous { database: database.name.clone() });
            }
            let request = CredentialRequest {
                pod: reference.clone(),
                database: database.name.clone(),
                engine: database.engine.clone(),
                role: database.role.clone(),
            };
            databases.push(Wanted { id, request, user, password });
        }
        Ok((!databases.is_empty()).then_some(Self { pod: reference, databases }))
    }

    /// The pod's uid.
    pub(crate) fn uid(&self) -> &str {
        self.pod.uid.as_deref().unwrap_or_default()
    }
}

/// Whether any container's environment has something of a placeholder.
fn has_placeholders(pod: &Pod) -> bool {
    containers(pod).flat_map(values).any(|(_, value)| value.contains(PREFIX))
}

fn pod_ref(pod: &Pod) -> PodRef {
    let spec = pod.spec.as_ref();
    let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    PodRef {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        service_account: text(spec.and_then(|spec| spec.service_account_name.as_ref()))
            .unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
        node: text(spec.and_then(|spec| spec.node_name.as_ref())),
    }
}

/// What stands for user and password of a database, where the webhook writes it.
fn placeholders(pod: &Pod, database: &DatabaseRequest) -> (BTreeSet<Placeholder>, BTreeSet<Placeholder>) {
    let (mut users, mut passwords) = (BTreeSet::new(), BTreeSet::new());
    let selected = containers(pod).filter(|container| database.selects(&container.name));
    for (name, value) in selected.flat_map(values) {
        let is_among = |keys: &[String]| keys.iter().any(|key| key == name);
        match &database.delivery {
            Delivery::Classic { user_keys, password_keys } => {
                let Ok(placeholder) = value.parse() else { continue };
                if is_among(user_keys) {
                    users.insert(placeholder);
                }
                if is_among(password_keys) {
                    passwords.insert(placeholder);
                }
            }
            Delivery::Uri { keys, template } if is_among(keys) => {
                let (user, password) = login(template, value);
                users.extend(user);
                passwords.extend(password);
            }
            Delivery::Uri { .. } => {}
        }
    }
    (users, passwords)
}

/// Which placeholders a rendered template holds: those with which it renders to this text.
fn login(template: &Template, text: &str) -> (Option<Placeholder>, Option<Placeholder>) {
    let found: BTreeSet<Placeholder> =
        Placeholder::find_all(text).map(|(_, placeholder)| placeholder).collect();
    let renders = |user: Placeholder, password: Placeholder| {
        template.render(&user.to_string(), &Secret::new(password.to_string())).expose() == text
    };
    let anything = Placeholder::random();
    match found.into_iter().collect::<Vec<_>>()[..] {
        [one] if renders(one, anything) => (Some(one), None),
        [one] if renders(anything, one) => (None, Some(one)),
        [one, other] if renders(one, other) => (Some(one), Some(other)),
        [one, other] if renders(other, one) => (Some(other), Some(one)),
        _ => (None, None),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

fn values(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let variables = container.env.iter().flatten();
    variables.filter_map(|variable| Some((variable.name.as_str(), variable.value.as_deref()?)))
}

#[cfg(test)]
mod tests;
