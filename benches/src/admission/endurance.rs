use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{Component, System};

use super::{Release, Subject, start};
use crate::memory::Memory;

/// Clients that ask at the same time.
const CLIENTS: usize = 16;

/// Looks at the memory in between.
const STEPS: usize = 5;

/// Starts whose time is taken.
const STARTS: usize = 9;

/// What becomes of the injector's memory, and how long it takes to start.
#[derive(Debug)]
pub(crate) struct Report {
    /// By the number of admissions so far.
    memory: Vec<(usize, Memory)>,
    /// From the start of the process until `/readyz` answers 200, and what of that was the login at OpenBao.
    starts: Vec<(Duration, Duration)>,
}

/// Measures over this many admissions.
///
/// # Errors
///
/// When a server does not start, or a pod is denied.
pub(crate) async fn measure(admissions: usize) -> Result<Report> {
    let (cluster, access) = start().await?;
    let release = Release { replicas: 0, ..Release::default() };
    let system = System::start(&cluster, &access, &release).await?;
    let subject = Subject::new(&cluster, &access, &system).await?;
    let pid = system.injector.server.pid();
    let mut memory = vec![(0, Memory::of(pid)?)];
    for step in 1..=STEPS {
        let most = admissions / STEPS;
        subject.run_admissions(CLIENTS, Duration::from_secs(3600), most).await?;
        subject.forget().await?;
        memory.push((step * most, Memory::of(pid)?));
        eprintln!("{} admissions: {:?}", step * most, Memory::of(pid)?);
    }
    let mut starts = Vec::new();
    for index in 0..STARTS {
        let began = Instant::now();
        let replica = System::replica(&cluster, &access, &release, Component::Injector, index + 1).await?;
        let took = began.elapsed();
        let login = replica
            .metric("vdbi_vault_request_duration_seconds_sum", &[r#"operation="login""#])
            .await
            .context("the login is measured")?;
        starts.push((took, Duration::from_secs_f64(login)));
    }
    Ok(Report { memory, starts })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("| admissions | resident MB | peak MB |\n|--:|--:|--:|\n")?;
        let megabytes = |kibibytes: u64| kibibytes as f64 * 1024.0 / 1e6;
        for (admissions, Memory { resident, peak }) in &self.memory {
            writeln!(f, "| {admissions} | {:.1} | {:.1} |", megabytes(*resident), megabytes(*peak))?;
        }
        let mut beyond: Vec<Duration> =
            self.starts.iter().map(|(took, login)| took.saturating_sub(*login)).collect();
        beyond.sort_unstable();
        let milliseconds = |time: &Duration| time.as_secs_f64() * 1000.0;
        let median = beyond.get(beyond.len() / 2).map_or(0.0, milliseconds);
        let most = beyond.last().map_or(0.0, milliseconds);
        write!(
            f,
            "\nStart to ready, beyond the login at OpenBao, {} starts: median {median:.0} ms, at most {most:.0} ms.",
            beyond.len()
        )
    }
}
