//! Pods created through the real API server at fixed rates, with OpenBao behind a distance.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::scene::Scene;
use e2e::{Cluster, DatabaseAccess, OpenBao, Release, System};
use kube::api::PostParams;
use serde_json::{Map, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::load::Samples;

const RATES: [u32; 3] = [10, 50, 100];
const LATENCIES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];

/// Pods per second by the latency of a round trip to OpenBao.
#[derive(Debug)]
pub(crate) struct Report(Vec<Row>);

#[derive(Debug)]
struct Row {
    latency: Duration,
    rate: u32,
    created: Samples,
    denied: usize,
}

/// Measures each rate at each latency for this long.
///
/// # Errors
///
/// When a server does not start.
pub(crate) async fn measure(time: Duration) -> Result<Report> {
    let mut rows = Vec::new();
    for latency in LATENCIES {
        for rate in RATES {
            let row = row(latency, rate, time).await?;
            eprintln!("{latency:?}, {rate}/s: {} created, {} denied", row.created.count(), row.denied);
            rows.push(row);
        }
    }
    Ok(Report(rows))
}

/// With servers of its own, so that none inherits what another left behind.
async fn row(latency: Duration, rate: u32, time: Duration) -> Result<Row> {
    let cluster = Cluster::builder().kubernetes().openbao(OpenBao::dev()).postgres().start().await?;
    cluster.postgres().query("ALTER ROLE postgres SET password_encryption = 'scram-sha-256'").await?;
    let access = DatabaseAccess::default();
    cluster.configure_database_access(&access).await?;
    let server = cluster.openbao().url().trim_start_matches("http://").parse()?;
    let (address, _distance) = distance(server, latency).await?;
    let configuration = Map::from_iter([("vaultAddress".to_owned(), json!(format!("http://{address}")))]);
    let release = Release { replicas: 0, configuration, ..Release::default() };
    let system = System::start(&cluster, &access, &release).await?;
    let scene = Scene { system, cluster, access };
    scene.create("warm", &[("main.role", "app")]).await?;

    let (pods, template) = (scene.pods(), scene.pod("web", &[("main.role", "app")]));
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut load, mut sent) = (Instant::now(), JoinSet::new(), 0);
    while began.elapsed() < time {
        // Due when its tick is, whenever this loop comes to it: a client does not wait for the one before.
        let due = ticks.tick().await;
        let (pods, mut pod) = (pods.clone(), template.clone());
        pod.metadata.name = Some(format!("web-{sent}"));
        sent += 1;
        load.spawn(async move {
            let outcome = pods.create(&PostParams::default(), &pod).await;
            (due.elapsed(), outcome.err().map(|error| error.to_string()))
        });
    }
    let (mut created, mut denials) = (Vec::new(), Vec::new());
    while let Some(outcome) = load.join_next().await {
        match outcome? {
            (took, None) => created.push(took),
            (_, Some(denial)) => denials.push(denial),
        }
    }
    if let Some(denial) = denials.first() {
        eprintln!("the first denial: {denial}");
    }
    Ok(Row { latency, rate, created: created.into_iter().collect(), denied: denials.len() })
}

/// A port that leads to a server from which every answer takes this much longer.
async fn distance(server: SocketAddr, latency: Duration) -> Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr().context("the proxy has an address")?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(async move {
                let Ok(server) = TcpStream::connect(server).await else { return };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::join!(
                    delay(from_client, to_server, Duration::ZERO),
                    delay(from_server, to_client, latency)
                );
            });
        }
    });
    Ok((address, tasks))
}

/// Passes on what it reads, each piece this much later, and as many at once as there are.
async fn delay(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, latency: Duration) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + latency, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("| Vault at ms | pods/s asked | created | denied | p50 ms | p99 ms |\n|--:|--:|--:|--:|--:|--:|\n")?;
        for Row { latency, rate, created, denied } in &self.0 {
            let (p50, p99) = (created.percentile(50), created.percentile(99));
            writeln!(
                f,
                "| {} | {rate} | {} | {denied} | {p50:.1} | {p99:.1} |",
                latency.as_millis(),
                created.count()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_takes_longer_by_the_distance_and_pieces_travel_together() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            while connection.read_exact(&mut byte).await.is_ok() {
                connection.write_all(&byte).await.unwrap();
            }
        });
        let (address, _distance) = distance(server, Duration::from_millis(100)).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let began = Instant::now();
        client.write_all(b"ab").await.unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ab");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");
    }
}
