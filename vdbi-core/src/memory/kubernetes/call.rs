//! What a request asks for.

use http::{Method, request::Parts};
use percent_encoding::percent_decode_str;

use super::{resource::Resource, selector::Selector, status::Refusal};

/// What a request does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// GET of a collection with `watch=true`.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
}

/// One request, as the predicates of faults see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// What it does.
    pub verb: Verb,
    /// The plural name of the resource, for instance `pods`.
    pub resource: &'static str,
    /// For instance `status` or `token`.
    pub subresource: Option<String>,
    /// The namespace, unless it is about all of them or the resource has none.
    pub namespace: Option<String>,
    /// The object's name, unless it is about a collection.
    pub name: Option<String>,
    /// Who asks: what [`KubernetesApi::connect`](super::KubernetesApi::connect) was given.
    pub user: String,
    /// Whether nothing may be stored.
    pub dry_run: bool,
}

/// A request with everything that the API needs to serve it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) call: Call,
    pub(super) resource: &'static Resource,
    pub(super) selector: Selector,
    pub(super) query: Query,
    /// Answer with metadata alone.
    pub(super) metadata_only: bool,
    pub(super) content_type: String,
}

/// The query parameters.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) resource_version: String,
    pub(super) limit: usize,
    pub(super) continue_token: String,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) bookmarks: bool,
    pub(super) send_initial_events: bool,
    pub(super) field_manager: Option<String>,
}

impl Request {
    pub(super) fn parse(parts: &Parts, user: &str) -> Result<Self, Refusal> {
        let segments = decoded_segments(parts.uri.path())?;
        let mut path = segments.iter().map(String::as_str);
        let (group, version) = match path.next() {
            Some("api") => ("", path.next().unwrap_or_default()),
            Some("apis") => (path.next().unwrap_or_default(), path.next().unwrap_or_default()),
            _ => return Err(Refusal::unknown_path()),
        };
        let rest: Vec<&str> = path.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some((*name).to_owned()), None),
            [plural, name, subresource] => {
                (*plural, Some((*name).to_owned()), Some((*subresource).to_owned()))
            }
            _ => return Err(Refusal::unknown_path()),
        };
        let resource = Resource::find(group, version, plural)
            .filter(|resource| resource.namespaced || namespace.is_none())
            .ok_or_else(Refusal::unknown_path)?;

        let mut query = Query::default();
        let (mut watch, mut dry_run, mut labels, mut fields) = (false, false, String::new(), String::new());
        for (key, value) in url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            let number =
                || value.parse().map_err(|_| Refusal::bad_request(format!("{key} is no number: {value}")));
            match &*key {
                "watch" => watch = truthy(&value),
                "dryRun" => dry_run = value == "All",
                "labelSelector" => labels = value.into_owned(),
                "fieldSelector" => fields = value.into_owned(),
                "resourceVersion" => query.resource_version = value.into_owned(),
                "limit" => query.limit = usize::try_from(number()?).unwrap_or(usize::MAX),
                "continue" => query.continue_token = value.into_owned(),
                "timeoutSeconds" => query.timeout_seconds = Some(number()?),
                "allowWatchBookmarks" => query.bookmarks = truthy(&value),
                "sendInitialEvents" => query.send_initial_events = truthy(&value),
                "fieldManager" => query.field_manager = Some(value.into_owned()),
                _ => {}
            }
        }
        let verb = match (&parts.method, &name) {
            (&Method::GET, None) if watch => Verb::Watch,
            (&Method::GET, None) => Verb::List,
            (&Method::GET, Some(_)) => Verb::Get,
            (&Method::POST, None) => Verb::Create,
            (&Method::POST, Some(_)) if subresource.is_some() => Verb::Create,
            (&Method::PUT, Some(_)) => Verb::Update,
            (&Method::PATCH, Some(_)) => Verb::Patch,
            (&Method::DELETE, Some(_)) => Verb::Delete,
            (&Method::DELETE, None) => Verb::DeleteCollection,
            _ => {
                return Err(Refusal::method_not_allowed());
            }
        };
        if resource.namespaced && namespace.is_none() && !matches!(verb, Verb::List | Verb::Watch) {
            return Err(Refusal::method_not_allowed());
        }
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Self {
            selector: Selector::parse(resource, namespace.as_deref(), &labels, &fields)?,
            metadata_only: header(http::header::ACCEPT).contains("as=PartialObjectMetadata"),
            content_type: header(http::header::CONTENT_TYPE).to_owned(),
            call: Call {
                verb,
                resource: resource.plural,
                subresource,
                namespace,
                name,
                user: user.to_owned(),
                dry_run,
            },
            resource,
            query,
        })
    }

    /// The object's name, where the verb implies that there is one.
    pub(super) fn name(&self) -> &str {
        self.call.name.as_deref().unwrap_or_default()
    }

    /// The object's namespace; empty for objects that have none.
    pub(super) fn namespace(&self) -> &str {
        self.call.namespace.as_deref().unwrap_or_default()
    }
}

fn truthy(value: &str) -> bool {
    matches!(value, "true" | "1")
}

fn decoded_segments(path: &str) -> Result<Vec<String>, Refusal> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let segments = segments.map(|segment| percent_decode_str(segment).decode_utf8().map(Into::into));
    segments.collect::<Result<_, _>>().map_err(|_| Refusal::unknown_path())
}
