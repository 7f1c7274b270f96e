use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::openbao::Client;
use e2e::{Cluster, Component, DatabaseAccess, OpenBao};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::refused;

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_pods_service_account_logs_into_openbao_and_gets_a_postgres_login() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    let started = Instant::now();
    let access = DatabaseAccess::default();
    cluster.configure_database_access(&access).await?;
    eprintln!("database access was set up in {:?}", started.elapsed());

    let (kubernetes, openbao, postgres) = (cluster.kubernetes(), cluster.openbao(), cluster.postgres());
    let jwt = kubernetes.service_account_token("shop", "app1", &["vault"], TEN_MINUTES).await?;
    let (app, login) = openbao.root().login("kubernetes", "app", &jwt).await?;
    let answer = app.read_answer("databases/creds/app").await?.context("no credential")?;
    let (user, password) = (text(&answer["data"]["username"]), text(&answer["data"]["password"]));
    assert!(postgres.can_login(user, password).await?);
    assert!(!postgres.can_login(user, "another password").await?);
    assert_eq!(openbao.root().lease_ids("databases/creds/app").await?, [text(&answer["lease_id"])]);

    openbao
        .root()
        .write("sys/leases/revoke", &json!({ "lease_id": answer["lease_id"], "sync": true }))
        .await?;
    assert!(!postgres.can_login(user, password).await?);
    assert!(postgres.roles_like("v-").await?.is_empty());

    let accessor = text(&login["auth"]["accessor"]);
    assert!(openbao.root().token_exists(accessor).await?);
    openbao.root().write("auth/token/revoke-accessor", &json!({ "accessor": accessor })).await?;
    assert!(!openbao.root().token_exists(accessor).await?);
    assert_eq!(openbao.count_requests("databases/creds/app")?, 1);
    Ok(())
}

#[tokio::test]
async fn a_component_may_do_its_own_work_and_nothing_else() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    let access = DatabaseAccess::default();
    cluster.configure_database_access(&access).await?;
    cluster.configure_database_access(&DatabaseAccess { role: "other".into(), ..access.clone() }).await?;
    let root = cluster.openbao().root();
    let log_in = async |component| -> Result<Client> {
        let jwt = fs::read_to_string(cluster.component_token_file(&access, component).await?)?;
        Ok(root.login("kubernetes", &access.component_role(component), &jwt).await?.0)
    };
    let (injector, renewer, revoker, plugin) = (
        log_in(Component::Injector).await?,
        log_in(Component::Renewer).await?,
        log_in(Component::Revoker).await?,
        log_in(Component::Nri).await?,
    );
    for client in [&injector, &renewer, &revoker, &plugin] {
        client.write("auth/token/renew-self", &json!({})).await?;
    }

    // Legacy mode: the injector mints a token of the application, gets a credential with it, and enters it in the ledger.
    let minted = injector.write("auth/token/create/dbi-pod", &json!({ "policies": ["app"] })).await?;
    let accessor = text(&minted["auth"]["accessor"]);
    let app = root.with_token(text(&minted["auth"]["client_token"]));
    let credential = app.read_answer("databases/creds/app").await?.context("no credential")?;
    let lease = &credential["lease_id"];
    let entry = json!({ "data": { "LeaseId": lease } });
    injector.write("dbi/data/kubernetes/a-uuid", &entry).await?;
    assert!(injector.read("auth/kubernetes/role/app").await?.is_some());
    injector.write("auth/token/create/dbi-pod", &json!({ "policies": ["other"] })).await?;
    refused(injector.write("auth/token/create/dbi-pod", &json!({ "policies": ["root"] })).await, 400);
    refused(injector.write("auth/token/create-orphan", &json!({ "policies": ["app"] })).await, 403);
    refused(injector.write("dbi/data/another-prefix/a-uuid", &entry).await, 403);
    refused(injector.read("dbi/data/kubernetes/a-uuid").await, 403);

    assert_eq!(renewer.ledger_keys("dbi", "kubernetes/").await?, ["a-uuid"]);
    assert!(renewer.read("dbi/data/kubernetes/a-uuid").await?.is_some());
    renewer.write("sys/leases/renew", &json!({ "lease_id": lease })).await?;
    renewer.write("auth/token/renew-accessor", &json!({ "accessor": accessor })).await?;
    refused(renewer.write("sys/leases/revoke", &json!({ "lease_id": lease })).await, 403);
    refused(renewer.delete("dbi/metadata/kubernetes/a-uuid").await, 403);

    // The node plugin does what the injector does, and sees whether a credential lives; it lists nothing and removes nothing.
    plugin.write("sys/leases/renew", &json!({ "lease_id": lease })).await?;
    plugin.write("auth/token/create/dbi-pod", &json!({ "policies": ["app"] })).await?;
    refused(plugin.write("sys/leases/renew", &json!({ "lease_id": "auth/kubernetes/login/x" })).await, 403);
    refused(plugin.write("sys/leases/revoke", &json!({ "lease_id": lease })).await, 403);
    refused(plugin.read("dbi/data/kubernetes/a-uuid").await, 403);
    refused(plugin.list("dbi/metadata/kubernetes/").await, 403);
    refused(plugin.delete("dbi/metadata/kubernetes/a-uuid").await, 403);

    assert_eq!(revoker.ledger_keys("dbi", "kubernetes/").await?, ["a-uuid"]);
    assert!(revoker.read("dbi/data/kubernetes/a-uuid").await?.is_some());
    revoker.write("sys/leases/revoke", &json!({ "lease_id": lease, "sync": true })).await?;
    refused(revoker.write("sys/leases/revoke", &json!({ "lease_id": "auth/kubernetes/login/x" })).await, 403);
    revoker.write("auth/token/revoke-accessor", &json!({ "accessor": accessor })).await?;
    revoker.delete("dbi/metadata/kubernetes/a-uuid").await?;
    assert!(root.ledger_keys("dbi", "kubernetes/").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_injector_mints_orphans_only_where_drop_in_compatibility_is_asked_for() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    let access = DatabaseAccess::default();
    cluster.configure_database_access(&access).await?;
    let jwt = fs::read_to_string(cluster.component_token_file(&access, Component::Injector).await?)?;
    let openbao = cluster.openbao();
    let (injector, _) = openbao.root().login("kubernetes", "injector", &jwt).await?;
    let orphan = json!({ "policies": ["app"], "period": "2h", "no_default_policy": true });
    refused(injector.write("auth/token/create-orphan", &orphan).await, 403);
    let requests = openbao.requests()?;
    let denied = requests.iter().find(|request| request.path == "auth/token/create-orphan");
    let denied = denied.context("the refused request is not in the audit log")?;
    assert_eq!(denied.display_name, "kubernetes-vdbi-system-vdbi-injector");
    assert!(denied.error.as_deref().is_some_and(|error| error.contains("permission denied")));

    cluster.configure_database_access(&DatabaseAccess { create_orphan: true, ..access }).await?;
    let minted = injector.write("auth/token/create-orphan", &orphan).await?;
    assert_eq!(minted["auth"]["token_policies"], json!(["app"]));
    assert_eq!(openbao.count_requests("auth/token/create-orphan")?, 2);
    Ok(())
}

#[tokio::test]
async fn a_component_has_no_more_rights_in_kubernetes_than_it_needs() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    let access = DatabaseAccess::default();
    cluster.configure_database_access(&access).await?;
    let everybody @ [injector, renewer, revoker, plugin] = Component::ALL;
    // verb, group/resource/name, namespace (empty: all), who may.
    let rights: [(&str, &str, &str, &[Component]); 18] = [
        ("create", "/serviceaccounts/token/", "shop", &[injector, plugin]),
        ("get", "/namespaces//kube-system", "", &everybody),
        ("get", "/namespaces//shop", "", &[]),
        ("get", "/pods//", "", &[plugin]),
        ("list", "/pods//", "", &[renewer, revoker, plugin]),
        ("watch", "/pods//", "", &[revoker, plugin]),
        ("patch", "/pods//", "shop", &[]),
        ("delete", "/pods//", "shop", &[]),
        ("create", "/pods/eviction/", "shop", &[renewer]),
        ("create", "events.k8s.io/events//", "shop", &[renewer, plugin]),
        ("create", "/events//", "shop", &[]),
        ("get", "coordination.k8s.io/leases//vdbi", "vdbi-system", &[renewer, revoker]),
        ("create", "coordination.k8s.io/leases//", "vdbi-system", &[renewer, revoker]),
        ("update", "coordination.k8s.io/leases//vdbi", "vdbi-system", &[renewer, revoker]),
        ("watch", "coordination.k8s.io/leases//vdbi", "vdbi-system", &[renewer, revoker]),
        ("update", "coordination.k8s.io/leases//vdbi", "kube-system", &[]),
        ("get", "/secrets//", "vdbi-system", &[]),
        ("create", "authentication.k8s.io/tokenreviews//", "", &[]),
    ];
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.kubernetes().admin());
    for (verb, object, namespace, allowed) in rights {
        let [group, resource, subresource, name] = object.splitn(4, '/').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{object}")
        };
        for component in everybody {
            let account = access.component_service_account(component);
            let review = serde_json::from_value(json!({ "spec": {
                "user": format!("system:serviceaccount:vdbi-system:{account}"),
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {
                    "verb": verb, "group": group, "resource": resource, "subresource": subresource,
                    "name": name, "namespace": namespace,
                },
            } }))?;
            let answer = serde_json::to_value(reviews.create(&PostParams::default(), &review).await?)?;
            assert_eq!(
                answer["status"]["allowed"],
                allowed.contains(&component),
                "{account}: {verb} {object} in '{namespace}'"
            );
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
