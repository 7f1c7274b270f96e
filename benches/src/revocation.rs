//! From the deletion of a pod at the real API server to the end of its database role.

mod gone;
mod report;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::openbao::Client;
use e2e::scene::{Scene, eventually, login};
use e2e::system::AnotherProgram;
use e2e::{Cluster, Component, DatabaseAccess, OpenBao, Release};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use crate::load::each;
use crate::memory::Memory;
use gone::Gone;
use report::{Burst, Report};

/// Requests to the API server at once: more are not answered faster.
const CLIENTS: usize = 16;

/// Opens connections and fills caches, on both sides.
const WARM_UP: usize = 10;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deletes so many pods one at a time, and then so many at once.
///
/// # Errors
///
/// When a server does not start, or anything is left afterwards.
pub(crate) async fn measure(singles: usize, burst: usize, program: Option<AnotherProgram>) -> Result<Report> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    eprintln!("the servers run; building and starting webhook, renewer and revoker");
    // No sweep but the first: every credential ends because its pod was seen to end.
    let revoker = json!({ "interval": "1h" });
    let configuration = Map::from_iter([("revoker".to_owned(), revoker)]);
    let release = Release { replicas: 1, configuration, program, ..Release::default() };
    let scene = Arc::new(Scene::on(cluster, DatabaseAccess::default(), release).await?);
    let mut gone = Gone::listen(&scene).await?;
    let revoker = &scene.system.revokers[0];
    eventually(PATIENCE, async || {
        ensure!(revoker.metric("vdbi_pod_cleanup_count_success", &[]).await? > 0.0, "it does not lead yet");
        Ok(())
    })
    .await?;
    let at_start = Memory::of(revoker.server.pid())?;

    let bare = Bare::new(&scene).await?;
    let (mut deletions, mut round_trips) = (Vec::new(), Vec::new());
    for index in 0..WARM_UP + singles {
        // In turns, so that both sides see the same neighbours on the machine.
        let deletion = single(&scene, &mut gone).await?;
        let round_trip = bare.run(&mut gone).await?;
        if index >= WARM_UP {
            deletions.push(deletion);
            round_trips.push(round_trip);
        }
    }
    eprintln!("{singles} pods were deleted one at a time");
    let burst = self::burst(&scene, &mut gone, burst).await?;
    scene.nothing_remains(PATIENCE).await?;
    let at_end = Memory::of(revoker.server.pid())?;
    Ok(Report {
        deletions: deletions.into_iter().collect(),
        bare: round_trips.into_iter().collect(),
        burst,
        at_start,
        at_end,
    })
}

async fn single(scene: &Scene, gone: &mut Gone) -> Result<Duration> {
    let pod = scene.create("web", &[("main.role", "app")]).await?;
    let user = login(&pod, "DBUSER", "DBPASSWORD")?.user;
    // Long against the events of the creation.
    sleep(Duration::from_millis(20)).await;
    let began = Instant::now();
    scene.delete("web").await?;
    let at = gone.wait(&user, PATIENCE).await?;
    Ok(at.duration_since(began))
}

async fn burst(scene: &Arc<Scene>, gone: &mut Gone, pods: usize) -> Result<Burst> {
    let users = each(pods, CLIENTS, {
        let scene = scene.clone();
        move |index| {
            let scene = scene.clone();
            async move {
                let pod = scene.create(&format!("burst-{index}"), &[("main.role", "app")]).await?;
                Ok(login(&pod, "DBUSER", "DBPASSWORD")?.user)
            }
        }
    })
    .await?;
    let before = scene.cluster.openbao().requests()?.len();
    let first = Instant::now();
    each(pods, CLIENTS, {
        let api = scene.pods();
        move |index| {
            let api = api.clone();
            async move {
                api.delete(&format!("burst-{index}"), &DeleteParams::default()).await?;
                Ok(())
            }
        }
    })
    .await?;
    let last = Instant::now();
    let mut last_role = last;
    for user in &users {
        last_role = last_role.max(gone.wait(user, PATIENCE).await?);
    }
    let memory = Memory::of(scene.system.revokers[0].server.pid())?;
    scene.nothing_remains(PATIENCE).await?;
    let requests = scene.cluster.openbao().requests()?.split_off(before);
    let requests = requests.iter().filter(|request| request.display_name.ends_with("-revoker")).count();
    Ok(Burst {
        pods,
        deleting: last.duration_since(first),
        after: last_role.duration_since(last),
        requests,
        memory,
    })
}

/// What nothing that ends a pod's credential can do without: the deletion at the API server, and the end of the lease, over
/// pooled connections and with the revoker's own rights.
struct Bare<'a> {
    scene: &'a Scene,
    revoker: Client,
}

impl<'a> Bare<'a> {
    async fn new(scene: &'a Scene) -> Result<Self> {
        let Scene { cluster, access, .. } = scene;
        let jwt = fs::read_to_string(cluster.component_token_file(access, Component::Revoker).await?)?;
        let role = access.component_role(Component::Revoker);
        let (revoker, _) = cluster.openbao().root().login("kubernetes", &role, &jwt).await?;
        Ok(Self { scene, revoker })
    }

    async fn run(&self, gone: &mut Gone) -> Result<Duration> {
        let Scene { cluster, access, .. } = self.scene;
        let DatabaseAccess { token_role, role, engine, .. } = access;
        let mut pod = self.scene.pod("bare", &[]);
        pod.metadata.labels = None;
        self.scene.pods().create(&PostParams::default(), &pod).await?;
        let root = cluster.openbao().root();
        let token =
            root.write(&format!("auth/token/create/{token_role}"), &json!({ "policies": [role] })).await?;
        let token = &token["auth"];
        let user = root.with_token(token["client_token"].as_str().context("there is a token")?);
        let credential = user.read_answer(&format!("{engine}/creds/{role}")).await?;
        let credential = credential.context("the database role is missing")?;
        let user = credential["data"]["username"].as_str().context("there is a user")?;

        let began = Instant::now();
        self.scene.delete("bare").await?;
        let lease = json!({ "lease_id": credential["lease_id"], "sync": true });
        self.revoker.write("sys/leases/revoke", &lease).await?;
        let at = gone.wait(user, PATIENCE).await?;
        self.revoker.write("auth/token/revoke-accessor", &json!({ "accessor": token["accessor"] })).await?;
        Ok(at.duration_since(began))
    }
}
