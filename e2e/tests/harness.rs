//! What the other tests rely on: the servers answer, work together, and never outlive a test.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::installed::Installed;
use e2e::openbao::Refused;
use e2e::{Cluster, Component, DatabaseAccess, OpenBao, Program, Server};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_servers_of_a_cluster_answer() -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    eprintln!("three servers were ready after {:?}", started.elapsed());

    let namespaces: Api<Namespace> = Api::all(cluster.kubernetes().admin());
    assert!(namespaces.list(&ListParams::default()).await?.items.iter().any(|it| it.metadata.name.as_deref() == Some("kube-system")));
    assert!(cluster.openbao().root().read("sys/mounts").await?.is_some());
    assert_eq!(cluster.postgres().roles_like("postgres").await?, ["postgres"]);
    Ok(())
}

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

    openbao.root().write("sys/leases/revoke", &json!({ "lease_id": answer["lease_id"], "sync": true })).await?;
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
    let log_in = async |component| -> Result<e2e::openbao::Client> {
        let jwt = fs::read_to_string(cluster.component_token_file(&access, component).await?)?;
        Ok(root.login("kubernetes", &access.component_role(component), &jwt).await?.0)
    };
    let (injector, renewer, revoker) =
        (log_in(Component::Injector).await?, log_in(Component::Renewer).await?, log_in(Component::Revoker).await?);
    for client in [&injector, &renewer, &revoker] {
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
async fn a_request_that_rbac_forbids_is_found_in_the_audit_log() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    let kubernetes = cluster.kubernetes();
    kubernetes.create_namespace("shop").await?;
    kubernetes.create_service_account("shop", "app1").await?;
    let kubeconfig = kubernetes.kubeconfig_for_service_account("shop", "app1").await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;

    let forbidden = Api::<Pod>::namespaced(client, "shop").list(&ListParams::default()).await;
    assert!(matches!(forbidden, Err(kube::Error::Api(status)) if status.code == 403));
    let denials = kubernetes.audit_denials("system:serviceaccount:shop:")?;
    assert_eq!(denials.len(), 1, "{denials:?}");
    assert_eq!((denials[0].verb.as_str(), denials[0].code), ("list", Some(403)));
    assert!(denials[0].object.as_ref().is_some_and(|object| object.resource == "pods" && object.namespace == "shop"));
    assert!(kubernetes.audit_denials("system:serviceaccount:vdbi-system:")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_labelled_pod_is_refused_while_its_webhook_is_down() -> Result<()> {
    let mut cluster = Cluster::builder().kubernetes().start().await?;
    let kubernetes = cluster.kubernetes_mut();
    kubernetes.create_namespace("shop").await?;
    kubernetes.create_service_account("shop", "app1").await?;
    let authority = e2e::Authority::new("webhook")?;
    // Nothing listens on port 1.
    kubernetes.install_webhook("https://127.0.0.1:1/mutate", &authority.pem(), "vault-db-injector").await?;
    kubernetes.restart_apiserver().await?;

    let pods: Api<Pod> = Api::namespaced(kubernetes.admin(), "shop");
    let pod = |name: &str, labels: Value| -> Result<Pod> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "serviceAccountName": "app1",
                "containers": [{ "name": "app", "image": "app" }],
            },
        }))?)
    };
    let plain = pods.create(&PostParams::default(), &pod("plain", json!({}))?).await?;
    let volumes = plain.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    assert!(volumes.iter().any(|volume| volume.projected.is_some()), "the service account's token is mounted");
    let refused = pods.create(&PostParams::default(), &pod("labelled", json!({ "vault-db-injector": "true" }))?).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("pods.vdbi.test")));
    Ok(())
}

#[tokio::test]
async fn a_sealed_openbao_answers_again_after_it_is_unsealed() -> Result<()> {
    let mut cluster = Cluster::builder().openbao(OpenBao::dev()).start().await?;
    let openbao = cluster.openbao_mut();
    openbao.seal().await?;
    refused(openbao.root().read("sys/mounts").await, 503);
    openbao.unseal().await?;
    assert!(openbao.root().read("sys/mounts").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn an_openbao_on_a_disk_remembers_across_a_restart() -> Result<()> {
    let mut cluster = Cluster::builder().openbao(OpenBao::raft()).start().await?;
    let openbao = cluster.openbao_mut();
    openbao.root().write("sys/mounts/dbi", &json!({ "type": "kv" })).await?;
    openbao.root().write("dbi/entry", &json!({ "key": "value" })).await?;
    openbao.restart().await?;
    openbao.seal().await?;
    openbao.unseal().await?;
    assert_eq!(openbao.root().read("dbi/entry").await?, Some(json!({ "key": "value" })));
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_was_stopped_comes_back_with_its_roles() -> Result<()> {
    let mut cluster = Cluster::builder().postgres().start().await?;
    let postgres = cluster.postgres_mut();
    postgres.query("CREATE ROLE app LOGIN PASSWORD 'secret'").await?;
    postgres.stop().await?;
    assert!(postgres.can_login("app", "secret").await.is_err(), "a server that is down does not decide on a login");
    postgres.start_again().await?;
    assert!(postgres.can_login("app", "secret").await?);
    Ok(())
}

#[tokio::test]
async fn a_server_that_fails_is_reported_with_the_end_of_its_log() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = Program::new("/bin/sh", directory.path()).args(["-c", "echo the disk is full >&2; exit 3"]);
    let mut server = Server::start("broken", program, directory.path()).await?;
    let error = server.ready(Duration::from_secs(10), async || anyhow::bail!("not yet")).await;
    let error = format!("{:#}", error.err().context("it was ready")?);
    assert!(error.contains("the disk is full") && error.contains("exit status: 3"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_process_ends_and_pauses_as_it_is_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let program = Program::new("/bin/sh", directory.path()).args(["-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"]);
    let mut server = Server::start("shell", program, directory.path()).await?;
    let state = |pid: u32| state_of(pid);
    server.stop()?;
    eventually(|| state(server.pid()) == Some('T'))?;
    server.cont()?;
    eventually(|| matches!(state(server.pid()), Some('S' | 'R')))?;
    assert_eq!(server.terminate(Duration::from_secs(10)).await?.code(), Some(7));
    server.restart().await?;
    let pid = server.pid();
    drop(server);
    assert_eq!(state(pid), None);
    Ok(())
}

#[test]
fn servers_die_with_a_killed_test_process() -> Result<()> {
    let mut test = Command::new(std::env::current_exe()?)
        .args(["--exact", "--ignored", "--nocapture", "helper_that_starts_servers_and_waits"])
        .env("VDBI_KEEP", "0")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(test.stdout.take().context("no output")?);
    let pids = output.lines().find_map(|line| Some(line.ok()?.split_once("servers: ")?.1.to_owned()));
    let pids: Vec<u32> = pids.context("the helper started no server")?.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert!(pids.len() == 2 && pids.iter().all(|&pid| state_of(pid).is_some()));

    test.kill()?;
    test.wait()?;
    for pid in pids {
        eventually(|| matches!(state_of(pid), None | Some('Z')))?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "started, and killed, by servers_die_with_a_killed_test_process"]
async fn helper_that_starts_servers_and_waits() -> Result<()> {
    // PostgreSQL is the one that runs as another user, and a change of user could lose the signal.
    let mut cluster = Cluster::builder().openbao(OpenBao::dev()).postgres().start().await?;
    println!("servers: {} {}", cluster.openbao_mut().server_mut().pid(), cluster.postgres_mut().server_mut().pid());
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

#[test]
fn a_missing_server_is_reported_with_the_command_that_installs_it() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let nothing = |name: &str| (name == "HOME").then(|| OsString::from(empty.path()));
    for (server, name) in [(Installed::KubeApiserver, "kube-apiserver"), (Installed::OpenBao, "bao")] {
        let error = server.path_in(nothing).err().context("it was found")?;
        assert_eq!(
            error.to_string(),
            format!("{name} was not found: run `hack/test-env` (it installs kube-apiserver, etcd, OpenBao and PostgreSQL for the tests)")
        );
    }
    Ok(())
}

#[test]
fn the_environment_wins_over_what_test_env_has_written() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let written = cache.path().join("a bao");
    fs::write(&written, "")?;
    fs::write(cache.path().join("env"), format!("VDBI_BAO={}\n", written.display().to_string().replace(' ', "\\ ")))?;
    let environment = |name: &str| (name == "VDBI_CACHE").then(|| OsString::from(cache.path()));
    assert_eq!(Installed::OpenBao.path_in(environment)?, written);

    let own = cache.path().join("bao");
    fs::write(&own, "")?;
    let environment = |name: &str| (name == "VDBI_BAO").then(|| OsString::from(&own));
    assert_eq!(Installed::OpenBao.path_in(environment)?, own);
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T>, status: u16) {
    let error = outcome.expect_err("it was not refused");
    let refused = error.downcast_ref::<Refused>().expect("the server did not answer");
    assert_eq!(refused.status.as_u16(), status, "{error:#}");
}

/// As in proc(5); none when there is no such process.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn eventually(condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        ensure!(Instant::now() < deadline, "it did not happen within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
