use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Nri, Server, Version,
    network::isolated,
    nodes::{IMAGE, remove_stale_cgroups},
    scene::eventually,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::world::PATIENCE;

/// What the container of a test sleeps, in seconds: by it the process is found among all of the machine.
const MARK: u32 = 1_000_000_000;

#[test]
fn a_pod_serves_at_a_cluster_address_and_nothing_is_left_of_its_node() -> Result<()> {
    let mark = MARK + std::process::id();
    let cgroup = isolated(async || {
        let cluster = start(mark).await?;
        let services: Api<Service> = Api::default_namespaced(cluster.kubernetes().admin());
        let service = serde_json::from_value(json!({
            "metadata": { "name": "app" },
            "spec": { "selector": { "app": "app" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))?;
        let service = services.create(&PostParams::default(), &service).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a service has an address")?;
        eventually(PATIENCE, async || {
            let mut answer = String::new();
            TcpStream::connect((address.as_str(), 80)).await?.read_to_string(&mut answer).await?;
            ensure!(answer == "served\n", "{answer:?}");
            Ok(())
        })
        .await
        .context("no pod answers at the service's address")?;

        let node = cluster.nodes().node("node-1");
        let look = node.program("/bin/sh").args(["-c", "test -S $0"]).arg(node.nri_socket());
        let seen = Server::start("look", look, node.directory()).await?.wait_exit(PATIENCE).await?;
        ensure!(seen.success(), "a program on the node does not see its NRI socket");

        let routes = fs::read_to_string("/proc/thread-self/net/route")?;
        let leads_out = |route: &&str| route.split_whitespace().nth(1) == Some("00000000");
        ensure!(routes.lines().find(leads_out).is_none(), "there is a way out of the network:\n{routes}");
        assert_eq!(sleepers(mark).len(), 1, "the container is a process of this machine");
        cgroup_of(sleepers(mark)[0])
    })?;
    assert_eq!(sleepers(mark), [0; 0]);
    ensure!(!fs::exists(&cgroup)?, "{cgroup} is left");
    Ok(())
}

#[test]
fn containers_die_with_a_killed_test_process() -> Result<()> {
    // What is killed cannot clean up, so that its files are put where this test does.
    let files = tempfile::tempdir()?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o711))?;
    let mut test = Command::new(std::env::current_exe()?)
        .args(["--exact", "--ignored", "--nocapture", "harness::helper_that_runs_a_pod_and_waits"])
        .env("TMPDIR", files.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let mark = MARK + test.id();
    let output = BufReader::new(test.stdout.take().context("no output")?);
    let started = output.lines().any(|line| line.is_ok_and(|line| line.contains("a pod runs")));
    let containers = sleepers(mark);
    let cgroup = containers.first().map(|&container| cgroup_of(container));
    test.kill()?;
    test.wait()?;
    ensure!(started && containers.len() == 1, "the helper ran no pod");

    let cgroup = cgroup.context("the container is in a cgroup")??;
    let killed = Instant::now();
    while !sleepers(mark).is_empty() || fs::exists(&cgroup)? {
        ensure!(killed.elapsed() < Duration::from_secs(20), "the container or {cgroup} outlives the test");
        std::thread::sleep(Duration::from_millis(10));
        remove_stale_cgroups();
    }
    Ok(())
}

#[test]
#[ignore = "started, and killed, by containers_die_with_a_killed_test_process"]
fn helper_that_runs_a_pod_and_waits() -> Result<()> {
    isolated(async || {
        let _cluster = start(MARK + std::process::id()).await?;
        println!("a pod runs");
        std::future::pending().await
    })
}

/// A cluster with a pod that serves.
async fn start(mark: u32) -> Result<Cluster> {
    let started = Instant::now();
    // The other tests have the runtime that nodes have by default.
    let cluster = Cluster::builder().nodes(1).containerd(Version::V2_4, Nri::default()).start().await?;
    eprintln!("a whole cluster was ready after {:?}", started.elapsed());
    let pods: Api<Pod> = Api::default_namespaced(cluster.kubernetes().admin());
    let serve = format!("sleep {mark} & while :; do echo served | nc -l -p 8080; done");
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "app", "labels": { "app": "app" } },
        "spec": { "containers": [{
            "name": "app",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", serve],
        }] },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    eventually(PATIENCE, async || {
        ensure!(!sleepers(mark).is_empty(), "the pod does not run: {:?}", pods.get("app").await?.status);
        Ok(())
    })
    .await?;
    Ok(cluster)
}

/// The processes that sleep so long.
fn sleepers(mark: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let command = format!("sleep\0{mark}\0");
    ids.filter(|id| fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line == command))
        .collect()
}

/// The directory of the cgroup in which a node has the containers of its pods.
fn cgroup_of(process: u32) -> Result<String> {
    let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let node = cgroups.lines().find_map(|line| {
        let (_, path) = line.split_once(":memory:").or_else(|| line.split_once("0::"))?;
        path.split('/').find(|part| part.starts_with("vdbi-"))
    });
    let node = node.with_context(|| format!("it is in no cgroup of a node: {cgroups}"))?;
    let hierarchy =
        if fs::exists("/sys/fs/cgroup/memory")? { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" };
    let directory = format!("{hierarchy}/{node}");
    ensure!(fs::exists(&directory)?, "{directory} is not there");
    Ok(directory)
}
