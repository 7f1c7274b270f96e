use std::time::Duration;

use vdbi_core::{
    credential::{CredentialSource, SourceError},
    ledger::LedgerError,
    memory::{LedgerOperation, SourceOperation},
};
use vdbi_nri::stub::{ContainerInjector, Runtime};

use crate::{Node, login};

#[tokio::test(start_paused = true)]
async fn a_container_gets_a_credential_that_works_and_that_the_ledger_knows() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let adjustment = node.adjusted(&pod, &pod.container()).await.unwrap();
    assert!(node.works(&login(&adjustment)).await);
    assert_eq!(adjustment.removed_mounts(), ["/proc/uptime"]);
    let entries = node.ledger.entries();
    let entry = &entries[&pod.id].pod;
    assert_eq!(
        (entry.name.as_deref(), entry.uid.as_deref()),
        (Some("web-1"), Some(pod.sandbox.uid.as_str()))
    );
    assert_eq!(entry.node.as_deref(), Some("node-1"));
}

#[tokio::test(start_paused = true)]
async fn an_old_runtime_has_the_tripwire_replaced_since_it_removes_nothing() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let runtime = Runtime::containerd("1.7.24~ds1");
    let container = pod.container();
    let deadline = tokio::time::Instant::now() + crate::DEADLINE;
    let creation = vdbi_nri::stub::Creation::new(&pod.sandbox, &container, &runtime, deadline);
    let adjustment = node.plugin.create(creation).await.unwrap();
    assert_eq!(adjustment.removed_mounts(), [""; 0]);
    let [mount] = adjustment.mounts() else { panic!("{adjustment:?}") };
    assert_eq!((mount.destination.as_str(), mount.source.as_str()), ("/proc/uptime", "/proc/uptime"));
}

#[tokio::test(start_paused = true)]
async fn containers_of_a_pod_that_start_at_once_share_one_credential() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let mut other = pod.container();
    other.name = "side".into();
    let mut hold = node.source.hold(SourceOperation::Issue);
    let container = pod.container();
    let release = async {
        hold.arrived(1).await;
        hold.release();
    };
    let (first, second, ()) =
        tokio::join!(node.adjusted(&pod, &container), node.adjusted(&pod, &other), release);
    assert_eq!(login(&first.unwrap()).0, login(&second.unwrap()).0);
    assert_eq!(node.source.calls(SourceOperation::Issue), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_too_slow_is_an_error_in_time_and_its_answer_is_there_for_the_next_attempt() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let mut hold = node.source.hold(SourceOperation::Issue);
    let asked = tokio::time::Instant::now();
    let refused = node.create(&pod).await.unwrap_err().to_string();
    assert_eq!(asked.elapsed(), Duration::from_millis(1500));
    assert!(
        refused.starts_with("vault-db-injector: no credential within 1.5s (nri.fetchTimeout)"),
        "{refused}"
    );
    hold.arrived(1).await;
    hold.release();
    let login = node.create(&pod).await.unwrap();
    assert!(node.works(&login).await);
    assert_eq!(node.source.calls(SourceOperation::Issue), 1, "the kubelet's next attempt issues no other");
}

#[tokio::test(start_paused = true)]
async fn a_credential_without_a_ledger_entry_is_not_delivered_and_is_revoked() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    node.ledger.fail_next(LedgerOperation::Record, LedgerError::Unavailable("down".into()));
    let refused = node.create(&pod).await.unwrap_err().to_string();
    assert!(
        refused.contains("database main: its credential could not be entered into the ledger"),
        "{refused}"
    );
    crate::eventually("it is revoked", async || node.source.leases().is_empty()).await;
    let login = node.create(&pod).await.unwrap();
    assert!(node.works(&login).await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_a_live_credential_keeps_it() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    let after = node.create(&pod).await.unwrap();
    assert_eq!(before.0, after.0);
    assert_eq!(node.source.calls(SourceOperation::Renew), 1, "it was looked at");
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_a_dead_credential_gets_another_and_overwrites_no_entry() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    let first = node.ledger.entries()[&pod.id].clone();
    node.source.revoke(&first.lease).await.unwrap();

    let after = node.create(&pod).await.unwrap();
    assert!(after.0 != before.0 && node.works(&after).await);
    let entries = node.ledger.entries();
    assert_eq!(entries[&pod.id].lease.id, first.lease.id, "the old entry is as it was");
    assert_eq!(entries[&pod.id.successor()].pod, first.pod);
    assert_eq!(entries.len(), 2);
    // And once more: the chain goes on.
    node.source.revoke(&entries[&pod.id.successor()].lease).await.unwrap();
    let third = node.create(&pod).await.unwrap();
    assert!(node.works(&third).await);
    assert!(node.ledger.entries().contains_key(&pod.id.successor().successor()));
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_the_backend_is_down_gets_what_it_had() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    node.source.fail_next(SourceOperation::Renew, SourceError::Unavailable("sealed".into()));
    assert_eq!(node.create(&pod).await.unwrap().0, before.0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_the_backend_hangs_gets_what_it_had_in_time() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    let _hung = node.source.hold(SourceOperation::Renew);
    let asked = tokio::time::Instant::now();
    assert_eq!(node.create(&pod).await.unwrap().0, before.0);
    assert_eq!(asked.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn another_container_of_the_pod_gets_the_credential_without_a_request() {
    let node = Node::with(None);
    let pod = node.pod("web-1").await;
    let before = node.create(&pod).await.unwrap();
    node.source.set_available(false);
    let mut side = pod.container();
    side.name = "side".into();
    assert_eq!(login(&node.adjusted(&pod, &side).await.unwrap()).0, before.0);
    assert_eq!(node.source.calls(SourceOperation::Renew), 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_another_pod_that_an_annotation_names_is_not_touched() {
    let node = Node::with(None);
    let victim = node.pod("victim").await;
    let victims = node.create(&victim).await.unwrap();
    let entry = node.ledger.entries()[&victim.id].clone();

    let thief = node.pod("thief").await;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(node.kubernetes.client(), "shop");
    let forged = serde_json::json!({ "metadata": { "annotations": {
        vdbi_core::pod::UUID_ANNOTATION: victim.id.to_string(),
    } } });
    pods.patch("thief", &Default::default(), &kube::api::Patch::Merge(forged)).await.unwrap();
    let thiefs = node.create(&thief).await.unwrap();

    assert!(thiefs.0 != victims.0 && node.works(&victims).await && node.works(&thiefs).await);
    let entries = node.ledger.entries();
    assert_eq!((&entries[&victim.id].lease.id, &entries[&victim.id].pod), (&entry.lease.id, &entry.pod));
    assert_eq!(entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_could_be_issued_is_kept_when_another_database_fails() {
    let node = Node::with(None);
    let pod = node.pod_with_two_databases("web-1").await;
    let refused = node.adjusted(&pod, &pod.container()).await.unwrap_err().to_string();
    assert!(refused.contains("database second: "), "{refused}");
    assert_eq!(node.source.leases().len(), 1);
    node.source.allow("other", "shop", "app1");
    node.adjusted(&pod, &pod.container()).await.unwrap();
    assert_eq!((node.source.leases().len(), node.source.calls(SourceOperation::Issue)), (2, 2));
}
