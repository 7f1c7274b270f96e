use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    coordination::v1::Lease,
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client, Error, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{PartialObjectMeta, Status},
    runtime::{WatchStreamExt, reflector, watcher},
};
use serde_json::json;

use super::*;

// rustls comes with the feature `vault`.
#[cfg(feature = "vault")]
mod webhook;

fn pod(name: &str) -> Pod {
    let metadata = if name.ends_with('-') { json!({"generateName": name}) } else { json!({"name": name}) };
    let mut pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    pod["metadata"]["labels"] = json!({"vdbi": "true"});
    serde_json::from_value(pod).unwrap()
}

fn lease(name: &str) -> Lease {
    let spec = json!({"holderIdentity": "a", "leaseDurationSeconds": 15});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn pods(client: Client) -> Api<Pod> {
    Api::namespaced(client, "shop")
}

fn leases(client: Client) -> Api<Lease> {
    Api::namespaced(client, "vdbi")
}

async fn create(api: &Api<Pod>, name: &str) -> Pod {
    api.create(&PostParams::default(), &pod(name)).await.unwrap()
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}

fn to_delete(call: &Call) -> bool {
    call.verb == Verb::Delete
}

#[tokio::test]
async fn a_new_pod_is_pending_and_has_what_the_server_gives() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    let pod = create(&pods, "web-").await;
    assert!(pod.name_any().starts_with("web-") && pod.name_any().len() == 9);
    assert!(pod.uid().is_some() && pod.creation_timestamp().is_some() && pod.resource_version().is_some());
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    assert_eq!(pod.spec.unwrap().service_account_name.as_deref(), Some("default"));
    let namespaces: Api<Namespace> = Api::all(api.client());
    assert_eq!(namespaces.get("shop").await.unwrap().uid(), api.namespace_uid("shop"));
    assert!(api.namespace_uid("kube-system").is_some());
}

#[tokio::test]
async fn what_is_missing_or_taken_is_refused_with_a_status() {
    let pods = pods(KubernetesApi::new().client());
    create(&pods, "web").await;
    let taken = refusal(pods.create(&PostParams::default(), &pod("web")).await);
    assert_eq!((taken.code, taken.reason.as_str()), (409, "AlreadyExists"));
    let missing = refusal(pods.get("other").await);
    assert_eq!((missing.code, missing.message.as_str()), (404, "pods \"other\" not found"));
    assert_eq!(missing.details.unwrap().name, "other");
    assert!(pods.get_opt("other").await.unwrap().is_none());
    let nameless = refusal(pods.create(&PostParams::default(), &Pod::default()).await);
    assert_eq!(nameless.code, 422);
}

#[tokio::test]
async fn a_stale_write_is_a_conflict() {
    let leases = leases(KubernetesApi::new().client());
    let first = leases.create(&PostParams::default(), &lease("lock")).await.unwrap();
    let mut second = first.clone();
    second.spec.as_mut().unwrap().holder_identity = Some("b".into());
    let params = PostParams::default();
    let second = leases.replace("lock", &params, &second).await.unwrap();
    assert_ne!(first.resource_version(), second.resource_version());
    assert_eq!(first.uid(), second.uid());
    let stale = refusal(leases.replace("lock", &params, &first).await);
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    let patch =
        json!({"metadata": {"resourceVersion": first.resource_version()}, "spec": {"holderIdentity": "c"}});
    assert_eq!(refusal(leases.patch("lock", &PatchParams::default(), &Patch::Merge(patch)).await).code, 409);
    let patch = json!({"spec": {"holderIdentity": "c"}});
    let patched = leases.patch("lock", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(patched.spec.unwrap().holder_identity.as_deref(), Some("c"));
}

#[tokio::test]
async fn a_lease_needs_a_resource_version_to_be_replaced_and_none_to_be_created() {
    let leases = leases(KubernetesApi::new().client());
    let params = PostParams::default();
    let created = leases.replace("lock", &params, &lease("lock")).await.unwrap();
    assert_eq!(refusal(leases.replace("lock", &params, &lease("lock")).await).code, 422);
    leases.delete("lock", &DeleteParams::default()).await.unwrap();
    // The uid in it says which object was meant.
    assert_eq!(refusal(leases.replace("lock", &params, &created).await).code, 409);
    let mut invalid = lease("other");
    invalid.spec.as_mut().unwrap().lease_duration_seconds = Some(0);
    assert_eq!(refusal(leases.create(&params, &invalid).await).code, 422);
}

#[tokio::test]
async fn writing_what_is_there_changes_nothing() {
    let leases = leases(KubernetesApi::new().client());
    let first = leases.create(&PostParams::default(), &lease("lock")).await.unwrap();
    let again = leases.replace("lock", &PostParams::default(), &first).await.unwrap();
    assert_eq!(first.resource_version(), again.resource_version());
}

#[tokio::test]
async fn a_running_pod_is_only_marked_until_its_kubelet_is_done() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    let uid = create(&pods, "web").await.uid();
    assert!(api.bind_pod("shop", "web", "n1"));
    let wrong_uid = DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid: Some("other".into()), ..Default::default() }),
        ..DeleteParams::default()
    };
    assert_eq!(refusal(pods.delete("web", &wrong_uid).await).code, 409);
    let marked = pods.delete("web", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(pods.get("web").await.unwrap().uid(), uid);
    pods.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn an_unscheduled_or_finished_pod_is_removed_at_once() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    for name in ["unscheduled", "finished"] {
        create(&pods, name).await;
    }
    api.bind_pod("shop", "finished", "n1");
    api.set_pod_phase("shop", "finished", "Succeeded");
    for name in ["unscheduled", "finished"] {
        pods.delete(name, &DeleteParams::default()).await.unwrap();
        assert!(pods.get_opt(name).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_finalizer_keeps_a_pod() {
    let pods = pods(KubernetesApi::new().client());
    let mut kept = pod("web");
    kept.metadata.finalizers = Some(vec!["vdbi/test".into()]);
    pods.create(&PostParams::default(), &kept).await.unwrap();
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    assert!(pods.get("web").await.unwrap().metadata.deletion_timestamp.is_some());
    let patch = json!({"metadata": {"finalizers": null}});
    pods.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert!(pods.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn status_and_specification_are_written_apart() {
    let pods = pods(KubernetesApi::new().client());
    create(&pods, "web").await;
    let running = json!({"status": {"phase": "Running"}, "metadata": {"labels": {"seen": "no"}}});
    let pod = pods.patch_status("web", &PatchParams::default(), &Patch::Merge(&running)).await.unwrap();
    assert_eq!(pod.labels().get("seen"), None);
    let annotated = json!({"metadata": {"annotations": {"a": "b"}}, "status": {"phase": "Failed"}});
    let pod = pods.patch("web", &PatchParams::default(), &Patch::Merge(&annotated)).await.unwrap();
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"));
    let moved = json!({"spec": {"nodeName": "n2"}});
    assert_eq!(refusal(pods.patch("web", &PatchParams::default(), &Patch::Merge(&moved)).await).code, 422);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let pods = pods(KubernetesApi::new().client());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    assert!(pods.create(&dry_run, &pod("web")).await.unwrap().uid().is_some());
    assert!(pods.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn lists_are_selected_and_paginated() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    for name in ["c", "a", "b"] {
        create(&pods, name).await;
    }
    api.bind_pod("shop", "b", "n1");
    let on_node = ListParams::default().labels("vdbi=true").fields("spec.nodeName=n1");
    let names = |list: Vec<Pod>| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    assert_eq!(names(pods.list(&on_node).await.unwrap().items), ["b"]);
    let first = pods.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(names(first.items), ["a", "b"]);
    let token = first.metadata.continue_.unwrap();
    create(&pods, "d").await;
    let rest = ListParams::default().limit(2).continue_token(&token);
    assert_eq!(names(pods.list(&rest).await.unwrap().items), ["c"], "a list is of one moment");
    api.compact();
    assert_eq!(refusal(pods.list(&rest).await).code, 410);
    let elsewhere: Api<Pod> = Api::namespaced(api.client(), "other");
    assert!(elsewhere.list(&ListParams::default()).await.unwrap().items.is_empty());
    assert_eq!(Api::<Pod>::all(api.client()).list(&ListParams::default()).await.unwrap().items.len(), 4);
}

#[tokio::test]
async fn a_pod_that_stops_matching_is_deleted_for_the_watch() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    create(&pods, "web").await;
    let params = WatchParams::default().fields("status.phase!=Failed");
    let events = pods.watch(&params, "0").await.unwrap();
    pin_mut!(events);
    let mut next = async || match events.next().await.unwrap().unwrap() {
        WatchEvent::Added(pod) => ("added", pod.name_any()),
        WatchEvent::Modified(pod) => ("modified", pod.name_any()),
        WatchEvent::Deleted(pod) => ("deleted", pod.name_any()),
        other => panic!("{other:?}"),
    };
    assert_eq!(next().await, ("added", "web".to_owned()));
    api.bind_pod("shop", "web", "n1");
    assert_eq!(next().await.0, "modified");
    api.set_pod_phase("shop", "web", "Failed");
    assert_eq!(next().await.0, "deleted");
    api.set_pod_phase("shop", "web", "Running");
    assert_eq!(next().await.0, "added");
}

#[tokio::test(start_paused = true)]
async fn watches_get_bookmarks_and_end_when_they_said() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    let params = WatchParams::default().timeout(90);
    let events = pods.watch(&params, "0").await.unwrap();
    let events: Vec<_> = events.try_collect().await.unwrap();
    assert!(matches!(&events[..], [WatchEvent::Bookmark(_), WatchEvent::Bookmark(_)]), "{events:?}");
}

#[tokio::test]
async fn a_watch_from_before_the_compaction_is_gone() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    let old = create(&pods, "web").await.resource_version().unwrap();
    api.bind_pod("shop", "web", "n1");
    api.compact();
    let events = pods.watch(&WatchParams::default(), &old).await.unwrap();
    pin_mut!(events);
    match events.next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_survives_compaction_closed_watches_and_a_refused_connection() {
    let api = KubernetesApi::new();
    let connection = api.connect("revoker");
    let stream = watcher(pods(connection.client()), watcher::Config::default().labels("vdbi=true"));
    let (store, writer) = reflector::store::<Pod>();
    let stream = stream.reflect(writer).default_backoff();
    pin_mut!(stream);
    let mut until = async |wanted: fn(&watcher::Result<watcher::Event<Pod>>) -> bool| {
        while !wanted(&stream.next().await.unwrap()) {}
    };
    let pods = pods(api.client());
    create(&pods, "a").await;
    until(|event| matches!(event, Ok(watcher::Event::InitDone))).await;
    api.close_watches();
    create(&pods, "b").await;
    until(|event| matches!(event, Ok(watcher::Event::Apply(pod)) if pod.name_any() == "b")).await;
    connection.refuse();
    until(Result::is_err).await;
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    create(&pods, "c").await;
    api.compact();
    connection.heal();
    until(|event| matches!(event, Ok(watcher::Event::InitDone))).await;
    let mut names: Vec<_> = store.state().iter().map(|pod| pod.name_any()).collect();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    assert!(connection.calls(Verb::List, "pods") >= 2);
}

#[tokio::test]
async fn metadata_alone_can_be_read_listed_and_watched() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    let uid = create(&pods, "web").await.uid();
    assert_eq!(pods.get_metadata("web").await.unwrap().uid(), uid);
    assert_eq!(pods.list_metadata(&ListParams::default()).await.unwrap().items[0].uid(), uid);
    let metadata: Api<PartialObjectMeta<Pod>> = Api::all(api.client());
    let stream = watcher(metadata, watcher::Config::default()).touched_objects();
    pin_mut!(stream);
    let seen: PartialObjectMeta<Pod> = stream.next().await.unwrap().unwrap();
    assert_eq!(seen.uid(), uid);
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    let gone = stream.next().await.unwrap().unwrap();
    assert_eq!((gone.uid(), gone.labels().get("vdbi").map(String::as_str)), (uid, Some("true")));
}

#[tokio::test]
async fn a_streaming_list_is_refused() {
    let pods = pods(KubernetesApi::new().client());
    let streaming = watcher::Config::default().streaming_lists();
    let stream = watcher(pods, streaming);
    pin_mut!(stream);
    let error = loop {
        if let Err(error) = stream.next().await.unwrap() {
            break error.to_string();
        }
    };
    assert!(error.contains("sendInitialEvents"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_is_silent_and_others_go_on() {
    let api = KubernetesApi::new();
    let connection = api.connect("leader");
    let (cut, other) = (leases(connection.client()), leases(api.client()));
    connection.cut();
    let params = PostParams::default();
    let lease = lease("lock");
    let create = cut.create(&params, &lease);
    pin_mut!(create);
    assert!(tokio::time::timeout(Duration::from_secs(3600), &mut create).await.is_err());
    assert!(other.get_opt("lock").await.unwrap().is_none());
    connection.heal();
    create.await.unwrap();
    assert!(other.get_opt("lock").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_paused_watch_lags_behind_while_requests_go_on() {
    let api = KubernetesApi::new();
    let connection = api.connect("standby");
    let pods = pods(connection.client());
    let events = pods.watch(&WatchParams::default(), "0").await.unwrap();
    pin_mut!(events);
    connection.pause_watches(true);
    create(&pods, "web").await;
    assert!(tokio::time::timeout(Duration::from_secs(30), events.next()).await.is_err());
    connection.pause_watches(false);
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
}

#[tokio::test(start_paused = true)]
async fn faults_replace_answers_before_or_after_the_commit() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    for name in ["a", "b", "c"] {
        create(&pods, name).await;
    }
    api.fail_next(to_delete, Fault::status(429).retry_after(Duration::from_secs(3)).message("slow down"));
    let refused = refusal(pods.delete("a", &DeleteParams::default()).await);
    assert_eq!((refused.code, refused.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(refused.details.unwrap().retry_after_seconds, 3);
    assert!(pods.get_opt("a").await.unwrap().is_some());

    api.fail_next(to_delete, Fault::reset().after_commit());
    assert!(matches!(pods.delete("a", &DeleteParams::default()).await, Err(Error::Service(_))));
    assert!(pods.get_opt("a").await.unwrap().is_none());

    let silence = api.fail_while(to_delete, Fault::silence().after_commit());
    let params = DeleteParams::default();
    assert!(tokio::time::timeout(Duration::from_secs(60), pods.delete("b", &params)).await.is_err());
    assert!(pods.get_opt("b").await.unwrap().is_none());
    drop(silence);
    pods.delete("c", &params).await.unwrap();
}

#[tokio::test]
async fn a_held_request_waits_at_the_door() {
    let api = KubernetesApi::new();
    let pods = pods(api.client());
    create(&pods, "web").await;
    let mut hold = api.hold(to_delete);
    let params = DeleteParams::default();
    let delete = pods.delete("web", &params);
    pin_mut!(delete);
    tokio::select! {
        _ = &mut delete => panic!("the request was not held"),
        () = hold.arrived(1) => {}
    }
    assert!(pods.get_opt("web").await.unwrap().is_some());
    hold.release();
    delete.await.unwrap();
}

#[tokio::test]
async fn a_token_request_has_the_claims_of_its_service_account() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    let api = KubernetesApi::new();
    let accounts: Api<ServiceAccount> = Api::namespaced(api.client(), "shop");
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "app1"}})).unwrap();
    let account = accounts.create(&PostParams::default(), &account).await.unwrap();
    let request = |seconds: i64| -> TokenRequest {
        let spec = json!({"audiences": ["vault"], "expirationSeconds": seconds});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    };
    let params = PostParams::default();
    let token = accounts.create_token_request("app1", &params, &request(600)).await.unwrap();
    let token = token.status.unwrap().token.unwrap();
    let [_, claims, ""] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["sub"], "system:serviceaccount:shop:app1");
    assert_eq!(claims["aud"], json!(["vault"]));
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["uid"], account.uid().unwrap());
    assert_eq!(refusal(accounts.create_token_request("app1", &params, &request(599)).await).code, 422);
    assert_eq!(refusal(accounts.create_token_request("app2", &params, &request(600)).await).code, 404);
}

#[tokio::test]
async fn events_are_recorded() {
    use k8s_openapi::api::events::v1::Event;
    use kube::runtime::events::{Event as NewEvent, EventType, Recorder, Reporter};

    let api = KubernetesApi::new();
    let pods = pods(api.client());
    let reference = {
        use kube::Resource;
        create(&pods, "web").await.object_ref(&())
    };
    let recorder = Recorder::new(api.client(), Reporter::from("renewer"));
    let event = NewEvent {
        type_: EventType::Warning,
        reason: "CredentialExpires".into(),
        note: Some("in an hour".into()),
        action: "Renew".into(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&event, &reference).await.unwrap();
    }
    let events: Api<Event> = Api::namespaced(api.client(), "shop");
    let events = events.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].series.as_ref().unwrap().count, 2);
}

#[tokio::test]
async fn the_server_says_its_version() {
    let version = KubernetesApi::new().client().apiserver_version().await.unwrap();
    assert_eq!(version.minor, "36");
}
