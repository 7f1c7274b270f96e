//! What each verb does to the store: the rules of an API server's registry.

use serde_json::{Value, json};

use super::{
    KubernetesApi,
    call::{Request, Verb},
    defaults::{admit, default_pod, generate_name, own_metadata, remove},
    deletion::{delete, ends_with_this_write},
    eviction::evict,
    resource::{PODS, Resource, SERVICE_ACCOUNTS},
    status::Refusal,
    store::{Object, Page, Store},
    token, validate,
};

/// What a request is answered with.
#[derive(Debug)]
pub(super) enum Reply {
    Object { code: u16, object: Object, warnings: Vec<String> },
    List(Page),
    Watch,
}

impl Reply {
    fn ok(object: Object) -> Self {
        Self::Object { code: 200, object, warnings: Vec::new() }
    }

    fn created(object: Object) -> Self {
        Self::Object { code: 201, object, warnings: Vec::new() }
    }
}

/// Serves one request.
pub(super) async fn execute(api: &KubernetesApi, request: &Request, body: &[u8]) -> Result<Reply, Refusal> {
    match (request.call.verb, request.call.subresource.as_deref()) {
        (Verb::Get, None | Some("status")) => find(&api.store(), request).map(Reply::ok),
        (Verb::List, None) => {
            let mut store = api.store();
            let page = match request.query.continue_token.as_str() {
                "" => store.list(request.resource, &request.selector, request.query.limit),
                token => store.list_rest(token, request.query.limit)?,
            };
            Ok(Reply::List(page))
        }
        (Verb::Watch, None) => Ok(Reply::Watch),
        (Verb::Create, None) => create(api, request, parse(body)?).await,
        (Verb::Create, Some("token")) if request.resource == &SERVICE_ACCOUNTS => {
            token::issue(&api.store(), request, &parse(body)?).map(|token| Reply::created(token.into()))
        }
        (Verb::Create, Some("binding")) if request.resource == &PODS => {
            bind(&mut api.store(), request, &parse(body)?)
        }
        (Verb::Create, Some("eviction")) if request.resource == &PODS => {
            let mut store = api.store();
            let pod = find(&store, request)?;
            evict(&mut store, request, &pod, &parse(body)?)?;
            Ok(Reply::created(success(201).into()))
        }
        (Verb::Update, None | Some("status")) => update(&mut api.store(), request, parse(body)?),
        (Verb::Patch, None | Some("status")) => {
            let mut store = api.store();
            let mut object = Value::clone(&*find(&store, request)?);
            apply_patch(request, &mut object, parse(body)?)?;
            update(&mut store, request, object)
        }
        (Verb::Delete, None) => {
            let options = if body.is_empty() { json!({}) } else { parse(body)? };
            let mut store = api.store();
            let object = find(&store, request)?;
            let last = delete(&mut store, request, &object, &options)?;
            let remains = !last["metadata"]["deletionTimestamp"].is_null();
            Ok(Reply::ok(if remains { last } else { deleted(request.resource, &last).into() }))
        }
        (Verb::DeleteCollection, None) => {
            let mut store = api.store();
            let page = store.list(request.resource, &request.selector, 0);
            for object in &page.objects {
                delete(&mut store, request, object, &json!({}))?;
            }
            Ok(Reply::List(page))
        }
        _ => Err(Refusal::unknown_path()),
    }
}

async fn create(api: &KubernetesApi, request: &Request, mut object: Value) -> Result<Reply, Refusal> {
    let Request { resource, call, .. } = request;
    validate::decodes(resource, &object)?;
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    object["kind"] = resource.kind.into();
    object["apiVersion"] = resource.api_version().into();
    own_metadata(request, &mut object)?;
    let mut warnings = Vec::new();
    if *resource == &PODS {
        default_pod(&mut object["spec"]);
        warnings = api.mutate(request, &mut object).await?;
        validate::decodes(resource, &object)?;
    }
    generate_name(&mut object["metadata"]);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        let why = "metadata.name: Required value: name or generateName is required";
        return Err(Refusal::invalid(resource, &name, why));
    }
    validate::object(resource, &object)?;
    let mut store = api.store();
    if store.get(resource, request.namespace(), &name).is_some() {
        return Err(Refusal::already_exists(resource, &name));
    }
    let object = admit(&mut store, request, object);
    Ok(Reply::Object {
        code: 201,
        object: if call.dry_run { object.into() } else { store.put(resource, object) },
        warnings,
    })
}

/// PUT, and the second half of PATCH.
fn update(store: &mut Store, request: &Request, mut object: Value) -> Result<Reply, Refusal> {
    let Request { resource, call, .. } = request;
    let name = request.name();
    validate::decodes(resource, &object)?;
    let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (named, uid, version) = (metadata("name"), metadata("uid"), metadata("resourceVersion"));
    if named != name {
        let message = format!("the name of the object ({named}) does not match the name on the URL ({name})");
        return Err(Refusal::bad_request(message));
    }
    let current = store.get(resource, request.namespace(), name);
    let current_uid =
        current.as_ref().and_then(|current| current["metadata"]["uid"].as_str()).unwrap_or_default();
    if !uid.is_empty() && uid != current_uid && (current.is_some() || resource.create_on_update) {
        let why = format!(
            "StorageError: invalid object, Code: 4, AdditionalErrorMsg: Precondition failed: UID in precondition: \
             {uid}, UID in object meta: {current_uid}"
        );
        return Err(Refusal::conflict(resource, name, &why));
    }
    let Some(current) = current else {
        if !resource.create_on_update || call.subresource.is_some() {
            return Err(Refusal::not_found(resource, name));
        }
        own_metadata(request, &mut object)?;
        validate::object(resource, &object)?;
        let object = admit(store, request, object);
        return Ok(Reply::created(if call.dry_run { object.into() } else { store.put(resource, object) }));
    };
    match version.as_str() {
        "" if !resource.unconditional_update => {
            let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            return Err(Refusal::invalid_update(resource, name, why));
        }
        "" => {}
        version if current["metadata"]["resourceVersion"] == version => {}
        _ => return Err(Refusal::modified(resource, name)),
    }
    let object = merged(request, &current, object);
    validate::object(resource, &object)?;
    if *resource == &PODS {
        validate::pod_update(name, &current, &object)?;
    }
    if object == *current {
        return Ok(Reply::ok(current));
    }
    if call.dry_run {
        return Ok(Reply::ok(object.into()));
    }
    if ends_with_this_write(&object["metadata"]) {
        return Ok(Reply::ok(store.remove(resource, object)));
    }
    Ok(Reply::ok(store.put(resource, object)))
}

/// What an update leaves of the current object: what clients may not write, and the half that this path does not write.
fn merged(request: &Request, current: &Value, mut object: Value) -> Value {
    if request.resource.has_status && request.call.subresource.as_deref() == Some("status") {
        let mut merged = current.clone();
        merged["status"] = object["status"].take();
        return merged;
    }
    object["kind"] = current["kind"].clone();
    object["apiVersion"] = current["apiVersion"].clone();
    if request.resource.has_status {
        object["status"] = current["status"].clone();
    }
    let fixed = [
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for field in fixed {
        match current["metadata"].get(field) {
            Some(value) => object["metadata"][field] = value.clone(),
            None => remove(&mut object["metadata"], field),
        }
    }
    object
}

fn apply_patch(request: &Request, object: &mut Value, patch: Value) -> Result<(), Refusal> {
    match request.content_type.as_str() {
        "application/merge-patch+json" => {
            json_patch::merge(object, &patch);
            Ok(())
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_value(patch)
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
            let refused = "the server rejected our request due to an error in our request";
            json_patch::patch(object, &patch).map_err(|_| Refusal::of_code(422, refused))
        }
        other => Err(Refusal::of_code(
            415,
            format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json (not {other:?})"
            ),
        )),
    }
}

fn bind(store: &mut Store, request: &Request, binding: &Value) -> Result<Reply, Refusal> {
    if binding["metadata"]["name"] != request.name() {
        return Err(Refusal::bad_request("name in URL does not match name in Binding object"));
    }
    let mut pod = Value::clone(&*find(store, request)?);
    if pod["spec"]["nodeName"].as_str().is_some_and(|bound| !bound.is_empty()) {
        let why = format!("pod {} is already assigned to node {}", request.name(), pod["spec"]["nodeName"]);
        return Err(Refusal::conflict(&PODS, request.name(), &why));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    if !request.call.dry_run {
        store.put(&PODS, pod);
    }
    Ok(Reply::created(success(201).into()))
}

fn find(store: &Store, request: &Request) -> Result<Object, Refusal> {
    let found = store.get(request.resource, request.namespace(), request.name());
    found.ok_or_else(|| Refusal::not_found(request.resource, request.name()))
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
}

/// What an API server answers where it does not answer with an object.
fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}

/// The answer to the deletion of most kinds.
fn deleted(resource: &Resource, object: &Value) -> Value {
    let mut status = success(200);
    let (name, uid) = (&object["metadata"]["name"], &object["metadata"]["uid"]);
    status["details"] = json!({"name": name, "group": resource.group, "kind": resource.plural, "uid": uid});
    status
}
