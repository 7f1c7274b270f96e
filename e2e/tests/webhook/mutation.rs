//! What becomes of pods on their way through the real API server, alone and among other webhooks.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Authority, DatabaseAccess, Release,
    scene::{Scene, eventually, login},
    system::{Authentication, LABEL},
};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use vdbi_core::{
    ledger::Owner,
    memory::{MemoryLedger, MemorySource},
    metrics::Registry,
};
use vdbi_webhook::{
    admit::{Admission, Limits},
    patch,
    policy::{Grant, Injection, MutationPolicy, Plan},
    review::Denial,
    server::{AdmissionServer, Shutdown},
    testing::mutation_policy,
    tls::{Material, Tls},
};

/// Another team's webhook: puts a sidecar before the other containers, unless it is there.
struct Sidecar;

impl MutationPolicy for Sidecar {
    fn plan(&self, pod: &Value, _: Timestamp) -> Result<Plan, Denial> {
        let mut patch = patch::Patch::default();
        if pod["spec"]["containers"]
            .as_array()
            .is_some_and(|all| all.iter().all(|it| it["name"] != "sidecar"))
        {
            patch.add(&["spec", "containers", "0"], json!({ "name": "sidecar", "image": "sidecar" }));
        }
        Ok(Plan::LeaveAlone { patch, warnings: Vec::new() })
    }

    fn patch(&self, _: &Value, _: &Injection, _: &[Grant], _: Timestamp) -> patch::Patch {
        patch::Patch::default()
    }
}

/// Installs that webhook under a name; webhooks are called in the order of the names of their configurations.
async fn other_webhook(scene: &Scene, name: &str) -> Result<JoinSet<std::io::Result<()>>> {
    let authority = Authority::new("another team")?;
    let identity = authority.server(&["127.0.0.1"])?;
    let registry = Registry::disabled();
    let material = Material { certificate: identity.certificate.into(), key: identity.key.into() };
    let server = AdmissionServer::bind(([127, 0, 0, 1], 0).into(), Tls::new(&material, None, &registry)?)?;
    let url = format!("https://{}/", server.local_addr());
    let owner = Owner { cluster: "c".into(), release: "r".into() };
    let (source, ledger) = (MemorySource::new(), MemoryLedger::new());
    let admission = Admission::new(source, ledger, Sidecar, owner, Limits::default(), &registry);
    let mut end = Shutdown::default();
    (end.delay, end.grace) = (Duration::ZERO, Duration::from_secs(1));
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(admission, end, std::future::pending()));
    let change = |configuration: &mut Value| {
        configuration["metadata"]["name"] = name.into();
        configuration["webhooks"][0]["name"] = format!("{name}.another.team").into();
    };
    scene.cluster.kubernetes().install_webhook_with(&url, &authority.pem(), change).await?;
    Ok(tasks)
}

fn names(pod: &Pod) -> BTreeMap<String, Vec<String>> {
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = spec.init_containers.into_iter().flatten().chain(spec.containers);
    containers
        .map(|container| {
            let env = container.env.into_iter().flatten().map(|variable| variable.name).collect();
            (container.name, env)
        })
        .collect()
}

/// Creates a pod as kubectl does, which shows the warnings of the answer's head.
async fn create_raw(scene: &Scene, pod: &Pod) -> Result<http::Response<kube::client::Body>> {
    let request = Request::post("/api/v1/namespaces/shop/pods")
        .header("content-type", "application/json")
        .body(kube::client::Body::from(serde_json::to_vec(pod)?))?;
    Ok(scene.cluster.kubernetes().admin().send(request).await?)
}

impl mutation_policy::Fixture for Sidecar {
    type Policy = Self;

    fn policy(&self) -> &Self {
        self
    }

    fn admitted(&self) -> Vec<Value> {
        vec![json!({ "spec": { "containers": [{ "name": "web" }] } })]
    }
}

#[tokio::test]
async fn another_policy_keeps_the_contract() {
    mutation_policy::run(&Sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_and_after_other_injectors_a_pod_gets_one_credential() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;

    // After ours, so that the API server invokes ours again.
    let _later = other_webhook(&scene, "zz-sidecar").await?;
    let present = async |name: &str| {
        eventually(Duration::from_secs(5), async || {
            let pod = scene.create(name, &[("main.role", "app")]).await?;
            if names(&pod).contains_key("sidecar") {
                return Ok(());
            }
            scene.delete(name).await?;
            anyhow::bail!("the API server does not know the other webhook yet")
        })
        .await?;
        scene.pods().get(name).await.map_err(anyhow::Error::from)
    };
    let pod = present("web").await?;
    let credential = ["DBUSER", "DBPASSWORD"];
    assert_eq!(names(&pod)["web"], credential);
    assert_eq!(names(&pod)["sidecar"], [""; 0], "it came after the credential was issued");
    let untouched =
        scene.system.injector.metric("vdbi_admissions_total", &[r#"outcome="untouched""#]).await?;
    assert_eq!(untouched, 1.0, "ours was invoked again, and did nothing");
    let roles = scene.cluster.postgres().roles_like("v-").await?.len();
    let injected = scene.system.injector.metric("vdbi_admissions_total", &[r#"outcome="injected""#]).await?;
    assert!(roles as f64 <= injected, "{roles} roles of {injected} admissions");

    // Before ours: the sidecar is a container like any other.
    let _earlier = other_webhook(&scene, "aa-sidecar").await?;
    eventually(Duration::from_secs(5), async || {
        scene.create("second", &[("main.role", "app")]).await?;
        let pod = scene.pods().get("second").await?;
        scene.delete("second").await?;
        ensure!(
            names(&pod)["sidecar"] == credential && names(&pod)["web"] == credential,
            "{:?}",
            names(&pod)
        );
        Ok(())
    })
    .await?;

    scene.create("selected", &[("main.role", "app"), ("main.containers", "web")]).await?;
    let pod = scene.pods().get("selected").await?;
    assert_eq!(
        (names(&pod)["web"].len(), names(&pod)["sidecar"].len(), names(&pod)["migrate"].len()),
        (2, 0, 0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_container_is_served_and_the_users_environment_is_kept() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let mut pod = serde_json::to_value(scene.pod("unused", &[("main.role", "app")]))?;
    pod["metadata"]["name"] = Value::Null;
    pod["metadata"]["generateName"] = "web-".into();
    pod["spec"]["initContainers"] = json!([
        { "name": "migrate", "image": "app" },
        { "name": "proxy", "image": "app", "restartPolicy": "Always" },
    ]);
    pod["spec"]["containers"] = json!([{
        "name": "web", "image": "app", "args": ["--user=$(DBUSER)"],
        "env": [{ "name": "URL", "value": "postgres://$(DBUSER)@db" }, { "name": "LAST", "value": "1" }],
    }]);
    let created = scene.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let environments = names(&created);
    assert_eq!(environments["migrate"], ["DBUSER", "DBPASSWORD"]);
    assert_eq!(environments["proxy"], ["DBUSER", "DBPASSWORD"]);
    assert_eq!(
        environments["web"],
        ["DBUSER", "DBPASSWORD", "URL", "LAST"],
        "ours first, so that $(DBUSER) expands"
    );
    let name = created.metadata.name.context("it was generated")?;

    // An ephemeral container is an update: nobody asks the webhook, and it gets nothing.
    let before = scene.system.injector.metric("vdbi_admissions_total", &[]).await?;
    let debug = json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "busybox" }] } });
    let debugged = scene
        .pods()
        .patch_subresource("ephemeralcontainers", &name, &PatchParams::default(), &Patch::Strategic(&debug))
        .await?;
    let ephemeral = debugged.spec.unwrap_or_default().ephemeral_containers.unwrap_or_default();
    assert!(ephemeral[0].env.is_none(), "{ephemeral:?}");
    let relabel =
        json!({ "metadata": { "labels": { "touched": "yes" }, "finalizers": ["example.com/wait"] } });
    scene.pods().patch(&name, &PatchParams::default(), &Patch::Merge(&relabel)).await?;
    assert_eq!(scene.system.injector.metric("vdbi_admissions_total", &[]).await?, before, "creations only");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_a_quota_rejects_later_leaves_no_credential() -> Result<()> {
    let configuration =
        Map::from_iter([("revoker".to_owned(), json!({ "interval": "1s", "gracePeriod": "2s" }))]);
    let scene =
        Scene::with(DatabaseAccess::default(), Release { configuration, ..Release::default() }).await?;
    let quotas = Api::<ResourceQuota>::namespaced(scene.cluster.kubernetes().admin(), "shop");
    let quota = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "pods": "0" } } });
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    // In place of the controller, which would count.
    let status = json!({ "status": { "hard": { "pods": "0" }, "used": { "pods": "0" } } });
    quotas.patch_status("none", &PatchParams::default(), &Patch::Merge(&status)).await?;
    let mut attempts = 0.0;
    eventually(Duration::from_secs(10), async || match scene.create("web", &[("main.role", "app")]).await {
        Err(kube::Error::Api(status)) if status.message.contains("exceeded quota") => Ok(()),
        Ok(_) => {
            scene.delete("web").await?;
            anyhow::bail!("the API server does not know the quota yet")
        }
        Err(error) => Err(error.into()),
    })
    .await?;
    attempts += scene.system.injector.metric("vdbi_admissions_total", &[r#"outcome="injected""#]).await?;
    assert!(attempts >= 1.0, "the webhook was asked before the quota");
    scene.nothing_remains(Duration::from_secs(8)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_short_and_the_audit_log_has_entries_and_no_secret() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let pod = scene.pod("web", &[("main.role", "app"), ("main.env-key-user", "X")]);
    let answer = create_raw(&scene, &pod).await?;
    assert_eq!(answer.status(), 201);
    let warnings: Vec<&str> =
        answer.headers().get_all("warning").iter().map(|it| it.to_str().unwrap()).collect();
    let ours = warnings.iter().find(|warning| warning.contains("did you mean main.env-key-dbuser"));
    assert!(ours.is_some_and(|warning| warning.len() < 140), "{warnings:?}");

    let created = scene.pods().get("web").await?;
    let login = login(&created, "DBUSER", "DBPASSWORD")?;
    let entry = &scene.ledger_keys().await?[0];
    let annotation = |key: &str| {
        let events = scene.cluster.kubernetes().audit_events()?;
        let name = format!("pods.vault-db-injector.numberly.io/{key}");
        anyhow::Ok(events.iter().find_map(|event| event.annotations.get(&name).cloned()))
    };
    assert_eq!(annotation("outcome")?.as_deref(), Some("injected"));
    assert_eq!(annotation("entries")?.as_ref(), Some(entry));
    let log = std::fs::read_to_string(scene.cluster.directory().join("kubernetes/audit.log"))?;
    assert!(!log.contains(&login.password));
    for replica in
        [&scene.system.injector].into_iter().chain(&scene.system.renewers).chain(&scene.system.revokers)
    {
        assert!(!replica.server.log()?.contains(&login.password), "a log has the password");
        assert!(!replica.metrics().await?.contains(&login.password));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_role_without_a_period_is_a_warning_to_the_user_and_a_metric() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Projected).await?;
    let role = json!({ "bound_service_account_names": "app1", "bound_service_account_namespaces": "shop",
        "audience": "vault", "token_policies": ["app"], "token_period": 0, "token_ttl": "1h" });
    scene.cluster.openbao().root().write("auth/kubernetes/role/app", &role).await?;
    let pod = scene.pod("web", &[("main.role", "app")]);
    let answer = create_raw(&scene, &pod).await?;
    let warning = answer.headers()["warning"].to_str()?;
    assert!(warning.contains("auth role app has no token_period"), "{warning}");
    let found =
        scene.system.injector.metric("vdbi_projected_role_misconfigured_total", &[r#"role="app""#]).await?;
    assert_eq!(found, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_pods_excluded_namespaces_and_pods_without_the_label_never_reach_the_webhook() -> Result<()> {
    let mut scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    scene.system.injector.server.kill().await?;
    let kubernetes = scene.cluster.kubernetes();
    for namespace in ["kube-system", "vault-db-injector"] {
        kubernetes.create_namespace(namespace).await?;
        kubernetes.create_service_account(namespace, "app1").await?;
        let mut pod = scene.pod("web", &[("main.role", "app")]);
        pod.metadata.namespace = Some(namespace.to_owned());
        let pods = Api::<Pod>::namespaced(kubernetes.admin(), namespace);
        pods.create(&PostParams::default(), &pod).await.context(namespace)?;
    }
    let mut mirror = serde_json::to_value(scene.pod("mirror", &[]))?;
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "checksum".into();
    mirror["spec"] = json!({ "nodeName": "n1", "containers": [{ "name": "web", "image": "app" }] });
    // A static pod has no service account, and only its node may say that it mirrors one; a dry run gets as far as the webhooks.
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let mirrored = scene.pods().create(&dry_run, &serde_json::from_value(mirror)?).await;
    let text = mirrored.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(!text.contains("webhook"), "{text}");
    let mut unlabelled = scene.pod("unlabelled", &[]);
    unlabelled.metadata.labels = Some([("other".to_owned(), LABEL.to_owned())].into());
    scene.pods().create(&PostParams::default(), &unlabelled).await?;
    let refused = scene.create("labelled", &[("main.role", "app")]).await.unwrap_err();
    assert!(refused.to_string().contains("failed calling webhook"), "{refused}");
    Ok(())
}
