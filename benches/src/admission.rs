//! One admission in legacy mode for a pod with one database, beside the three requests that it cannot do without.

mod bare;
pub(crate) mod endurance;
mod report;
mod webhook;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::openbao::Client;
use e2e::{Cluster, DatabaseAccess, OpenBao, Release, System};
use serde_json::json;

use crate::load::{Samples, closed_loop};
use crate::memory::Memory;
use bare::RoundTrips;
use report::{Level, Report};
use webhook::Admissions;

/// Credentials accumulate while a level runs, and with them the price of the next one.
const MOST_PER_LEVEL: usize = 1000;

/// Short, so that both sides see the same neighbours on the machine; long against one answer.
const SLICE: Duration = Duration::from_secs(1);

/// Opens connections and fills caches, on both sides.
const WARM_UP: usize = 32;

/// Starts the servers and the injector, and measures each number of clients.
///
/// # Errors
///
/// When a server does not start, a pod is denied, or anything is left after it has been revoked.
pub(crate) async fn measure(clients: &[usize], time: Duration) -> Result<Report> {
    let (cluster, access) = start().await?;
    let release = Release { replicas: 0, ..Release::default() };
    let system = System::start(&cluster, &access, &release).await?;

    let pid = system.injector.server.pid();
    let at_start = Memory::of(pid)?;
    let subject = Subject::new(&cluster, &access, &system).await?;
    subject.run_round_trips(WARM_UP, SLICE, WARM_UP).await?;
    subject.run_admissions(WARM_UP, SLICE, WARM_UP).await?;
    subject.forget().await?;
    let mut levels = Vec::with_capacity(clients.len());
    for &clients in clients {
        levels.push(subject.level(clients, time).await?);
        subject.forget().await?;
    }
    Ok(Report { levels, at_start, at_end: Memory::of(pid)? })
}

/// The servers, and what they cost elsewhere: the harness has the cheapest hash, and OpenBao creates users in the sessions of
/// this role.
async fn start() -> Result<(Cluster, DatabaseAccess)> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    cluster.postgres().query("ALTER ROLE postgres SET password_encryption = 'scram-sha-256'").await?;
    let access = DatabaseAccess::default();
    cluster.configure_database_access(&access).await?;
    eprintln!("the servers run; building and starting the injector");
    Ok((cluster, access))
}

struct Subject<'a> {
    cluster: &'a Cluster,
    access: &'a DatabaseAccess,
    round_trips: RoundTrips,
    admissions: Admissions,
}

impl<'a> Subject<'a> {
    async fn new(cluster: &'a Cluster, access: &'a DatabaseAccess, system: &System) -> Result<Self> {
        let round_trips = RoundTrips::new(cluster, access).await?;
        Ok(Self { cluster, access, round_trips, admissions: Admissions::new(system, access)? })
    }

    /// The two sides in turns, slice by slice.
    async fn level(&self, clients: usize, time: Duration) -> Result<Level> {
        let mut level = Level::of(clients);
        for _ in 0..time.as_secs().max(1) {
            let most = MOST_PER_LEVEL.saturating_sub(level.bare.count());
            level.bare.add(self.run_round_trips(clients, SLICE, most).await?);

            let (vault, reviews) = (self.vault_requests()?, self.token_reviews()?);
            let most = MOST_PER_LEVEL.saturating_sub(level.admissions.count());
            level.admissions.add(self.run_admissions(clients, SLICE, most).await?);
            level.vault_requests += self.vault_requests()? - vault;
            level.token_reviews += self.token_reviews()? - reviews;
        }
        eprintln!(
            "{clients} clients: {} admissions, {} bare round trips",
            level.admissions.count(),
            level.bare.count()
        );
        Ok(level)
    }

    async fn run_round_trips(&self, clients: usize, time: Duration, most: usize) -> Result<Samples> {
        let round_trips = self.round_trips.clone();
        let operation = move || {
            let round_trips = round_trips.clone();
            async move { round_trips.run().await }
        };
        closed_loop(clients, time, most, operation).await.context("the bare round trips")
    }

    async fn run_admissions(&self, clients: usize, time: Duration, most: usize) -> Result<Samples> {
        let admissions = self.admissions.clone();
        let operation = move || {
            let admissions = admissions.clone();
            async move { admissions.run().await }
        };
        closed_loop(clients, time, most, operation).await.context("the admissions")
    }

    fn vault_requests(&self) -> Result<usize> {
        Ok(self.cluster.openbao().requests()?.len())
    }

    fn token_reviews(&self) -> Result<usize> {
        let events = self.cluster.kubernetes().audit_events()?;
        let resources = events.iter().filter_map(|event| Some(event.object.as_ref()?.resource.as_str()));
        Ok(resources.filter(|&resource| resource == "tokenreviews").count())
    }

    /// Takes back everything that was issued, so that the next level begins as the first did.
    async fn forget(&self) -> Result<()> {
        let DatabaseAccess { engine, role, token_role, mount, prefix, .. } = self.access;
        let root = self.cluster.openbao().root();
        for leases in [format!("auth/token/create/{token_role}"), format!("{engine}/creds/{role}")] {
            revoke(root, &leases).await?;
        }
        for entry in root.ledger_keys(mount, prefix).await? {
            root.delete(&format!("{mount}/metadata/{prefix}/{entry}")).await?;
        }
        let left = self.cluster.postgres().roles_like("v-").await?;
        ensure!(left.is_empty(), "{} database users are left after all were revoked", left.len());
        Ok(())
    }
}

async fn revoke(root: &Client, prefix: &str) -> Result<()> {
    root.write(&format!("sys/leases/revoke-prefix/{prefix}"), &json!({ "sync": true })).await.map(drop)
}
