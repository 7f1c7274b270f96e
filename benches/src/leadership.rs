//! The election beside client-go's, over one kube-apiserver, each candidate in a process of its pod.

mod blackhole;
mod candidates;
mod group;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Kubernetes};
use serde_json::json;
use tokio::process::Command;
use tokio::time::sleep;

use blackhole::Blackhole;
pub(crate) use candidates::Candidates;
use group::{Group, Make};
use report::{Case, Report, Requests};

const NAMESPACE: &str = "default";

/// Each Lease of the measurement of requests has so many followers and one leader.
const FOLLOWERS: u16 = 9;

/// So many Leases are led and followed while requests are counted.
const COUNTED_LEASES: usize = 10;

/// How long requests are counted at least: a watch lasts nearly as long.
const COUNTED: Duration = Duration::from_secs(300);

/// What ends a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Graceful,
    /// Killed, and started again at once in the same pod.
    SamePod,
    Crash,
    CutOff,
}

impl End {
    const ALL: [Self; 4] = [Self::Graceful, Self::SamePod, Self::Crash, Self::CutOff];

    fn name(self) -> &'static str {
        match self {
            Self::Graceful => "graceful stop",
            Self::SamePod => "restart in the same pod",
            Self::Crash => "crash",
            Self::CutOff => "cut off",
        }
    }
}

/// Starts the servers, and lets so many Leases fail over for each end and number of candidates.
///
/// # Errors
///
/// When a server does not start, client-go's candidates cannot be built, or a Lease has no new leader in time.
pub(crate) async fn measure(leases: usize, candidates: &[u16]) -> Result<Report> {
    let client_go = build_client_go().await?;
    let cluster = Cluster::builder().kubernetes().start().await?;
    let world = World { kubernetes: cluster.kubernetes(), directory: cluster.directory(), client_go, leases };
    let (cases, requests) = tokio::try_join!(world.cases(candidates), world.requests())?;
    Ok(Report { cases, requests })
}

async fn build_client_go() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("client-go");
    let program = std::env::current_exe()?.with_file_name("client-go-candidates");
    eprintln!("building client-go's candidates");
    let status =
        Command::new("go").arg("build").arg("-o").arg(&program).arg(".").current_dir(source).status();
    ensure!(status.await.context("Go is needed: https://go.dev/dl")?.success(), "go build failed");
    Ok(program)
}

struct World<'a> {
    kubernetes: &'a Kubernetes,
    directory: &'a Path,
    client_go: PathBuf,
    leases: usize,
}

impl World<'_> {
    async fn cases(&self, candidates: &[u16]) -> Result<Vec<Case>> {
        let mut cases = Vec::new();
        for &candidates in candidates {
            for end in End::ALL {
                let [ours, theirs] = Make::ALL.map(|make| self.case(make, end, candidates));
                let (ours, theirs) = tokio::try_join!(ours, theirs)?;
                eprintln!("{}: {candidates} candidates for each of {} Leases", end.name(), self.leases);
                cases.extend([ours, theirs].into_iter().flatten());
            }
        }
        Ok(cases)
    }

    async fn case(&self, make: Make, end: End, candidates: u16) -> Result<Option<Case>> {
        if (make, end) == (Make::ClientGo, End::SamePod) {
            // It does not know its pod: a restart is a crash.
            return Ok(None);
        }
        let direct = self.kubernetes.admin_kubeconfig();
        let hole = Blackhole::start(self.kubernetes.url(), direct, self.directory).await?;
        let prefix = format!("{end:?}-{candidates}").to_lowercase();
        let mut group = Group::new(make, &self.client_go, &prefix, self.leases)?;
        group.settled(&hole.kubeconfig, direct, candidates).await?;

        let ended = match end {
            End::Graceful => group.stop_leaders().await?,
            End::SamePod => {
                let killed = group.kill_leader().await?;
                group.start(0, direct, Duration::ZERO)?;
                vec![killed; self.leases]
            }
            End::Crash => vec![group.kill_leader().await?; self.leases],
            End::CutOff => {
                hole.cut();
                vec![Instant::now(); self.leases]
            }
        };
        let dead = matches!(end, End::SamePod | End::Crash);
        let handovers = group.handovers(&ended, dead).await?;
        Ok(Some(Case { make, end, candidates, handovers }))
    }

    /// Counts, in the API server's audit log, what leaders and followers ask while nothing happens.
    async fn requests(&self) -> Result<Vec<Requests>> {
        let mut groups = Vec::new();
        for make in Make::ALL {
            let [leader, follower] = [true, false].map(|leads| account(make, leads));
            let (leader, follower) = (self.authorize(&leader).await?, self.authorize(&follower).await?);
            let mut group = Group::new(make, &self.client_go, "idle", COUNTED_LEASES)?;
            group.settled(&leader, &follower, FOLLOWERS + 1).await?;
            groups.push(group);
        }
        let (before, start) = (self.count()?, Instant::now());
        sleep(COUNTED).await;
        let (after, took) = (self.count()?, start.elapsed());
        let rate = |make, leads, replicas: usize| {
            let account = account(make, leads);
            let of = |counts: &BTreeMap<String, usize>| counts.get(&account).copied().unwrap_or_default();
            (of(&after) - of(&before)) as f64 / took.as_secs_f64() / replicas as f64
        };
        let of = |make| Requests {
            make,
            leader: rate(make, true, COUNTED_LEASES),
            follower: rate(make, false, COUNTED_LEASES * usize::from(FOLLOWERS)),
        };
        Ok(Make::ALL.map(of).into())
    }

    /// A kubeconfig of a service account with the rights of a candidate.
    async fn authorize(&self, name: &str) -> Result<PathBuf> {
        self.kubernetes.create_service_account(NAMESPACE, name).await?;
        let rule = json!({
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "verbs": ["get", "create", "update", "watch"],
        });
        self.kubernetes.grant(NAMESPACE, name, json!([rule])).await?;
        self.kubernetes.kubeconfig_for_service_account(NAMESPACE, name).await
    }

    /// Requests so far, by service account. A watch counts when it begins.
    fn count(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for event in self.kubernetes.audit_events()? {
            if let Some((_, account)) = event.user.split_once("system:serviceaccount:default:")
                && (event.verb != "watch" || event.stage == "ResponseStarted")
            {
                *counts.entry(account.to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

fn account(make: Make, leads: bool) -> String {
    format!("{}-{}", make.name(), if leads { "leader" } else { "follower" })
}
