use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than any fail-over.
const PATIENCE: Duration = Duration::from_secs(90);

/// The longest renewal interval of both.
const SPREAD: Duration = Duration::from_secs(3);

/// Between two Leases whose leaders are told to stop.
const APART: Duration = Duration::from_millis(100);

/// Whose election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    Vdbi,
    ClientGo,
}

/// What a candidate said.
#[derive(Clone, Copy, Debug)]
struct Event {
    process: usize,
    lease: usize,
    leading: bool,
    at: Instant,
}

/// Processes with a candidate for each of the same Leases. The first leads all of them.
#[derive(Debug)]
pub(super) struct Group {
    program: PathBuf,
    make: Make,
    prefix: String,
    leases: usize,
    processes: Vec<Child>,
    readers: JoinSet<()>,
    sender: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
}

/// A hand-over as it was seen from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    /// From what ended the leader to the successor's start.
    pub(super) took: Duration,
    /// How long both led.
    pub(super) overlap: Duration,
}

impl Make {
    pub(super) const ALL: [Self; 2] = [Self::Vdbi, Self::ClientGo];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vdbi => "vdbi",
            Self::ClientGo => "client-go",
        }
    }
}

impl Group {
    /// `program` is the one of client-go's candidates; ours are in this program.
    pub(super) fn new(make: Make, client_go: &Path, prefix: &str, leases: usize) -> Result<Self> {
        let program = match make {
            Make::Vdbi => std::env::current_exe()?,
            Make::ClientGo => client_go.to_owned(),
        };
        let prefix = format!("{}-{prefix}", make.name());
        let (sender, events) = unbounded_channel();
        Ok(Self {
            program,
            make,
            prefix,
            leases,
            processes: Vec::new(),
            readers: JoinSet::new(),
            sender,
            events,
        })
    }

    /// Starts one more process, in this pod. Its candidates begin spread over so long, as those of a cluster do.
    pub(super) fn start(&mut self, pod: u16, kubeconfig: &Path, spread: Duration) -> Result<()> {
        let process = self.processes.len();
        let mut command = Command::new(&self.program);
        if self.make == Make::Vdbi {
            command.arg("candidate");
        }
        let mut child = command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--prefix", &self.prefix, "--leases", &self.leases.to_string()])
            .args(["--pod", &format!("pod-{pod}"), "--spread", &spread.as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("a process with candidates")?;
        let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        let sender = self.sender.clone();
        self.readers.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let at = Instant::now();
                let Some((what, lease)) = line.split_once(' ') else { continue };
                let Ok(lease) = lease.parse() else { continue };
                // A group that is gone has no use for it.
                let _ = sender.send(Event { process, lease, leading: what == "leading", at });
            }
        });
        self.processes.push(child);
        Ok(())
    }

    /// Until the first process leads every Lease, and the others have settled as followers.
    pub(super) async fn settled(&mut self, first: &Path, others: &Path, candidates: u16) -> Result<()> {
        self.start(0, first, SPREAD)?;
        let mut led = 0;
        while led < self.leases {
            led += usize::from(self.event().await?.leading);
        }
        for pod in 1..candidates {
            self.start(pod, others, SPREAD)?;
        }
        // They start within a few seconds; the leader renews at any time of its interval.
        tokio::time::sleep(Duration::from_secs(8)).await;
        ensure!(self.events.is_empty(), "{}: leadership changes without a cause", self.prefix);
        Ok(())
    }

    /// Kills the leader of all Leases, without a word. It is dead since the moment that is returned.
    pub(super) async fn kill_leader(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.processes[0].kill().await?;
        Ok(at)
    }

    /// Stops the leader of one Lease after another, so that each hand-over is alone. Returns when each was told.
    pub(super) async fn stop_leaders(&mut self) -> Result<Vec<Instant>> {
        let mut told = Vec::with_capacity(self.leases);
        for lease in 0..self.leases {
            tokio::time::sleep(APART).await;
            told.push(Instant::now());
            let input = self.processes[0].stdin.as_mut().context("it is piped")?;
            input.write_all(format!("{lease}\n").as_bytes()).await?;
        }
        Ok(told)
    }

    /// The hand-over of each Lease to one of the others, after what ended its leader then. A dead leader says nothing of its
    /// end.
    pub(super) async fn handovers(&mut self, ended: &[Instant], dead: bool) -> Result<Vec<Handover>> {
        let mut stopped: Vec<_> = ended.iter().map(|&at| dead.then_some(at)).collect();
        let mut next = vec![None; self.leases];
        while stopped.iter().chain(&next).any(Option::is_none) {
            let Event { process, lease, leading, at } = self.event().await?;
            match (process, leading) {
                (0, false) => stopped[lease] = Some(at),
                (0, true) => bail!("the leader of {}-{lease} has won it again", self.prefix),
                (_, true) => {
                    next[lease].get_or_insert(at);
                }
                (_, false) => {}
            }
        }
        let pairs = stopped.into_iter().flatten().zip(next.into_iter().flatten());
        let handover = |((stopped, next), ended): ((Instant, Instant), &Instant)| Handover {
            took: next.duration_since(*ended),
            overlap: stopped.saturating_duration_since(next),
        };
        Ok(pairs.zip(ended).map(handover).collect())
    }

    async fn event(&mut self) -> Result<Event> {
        timeout(PATIENCE, self.events.recv())
            .await
            .with_context(|| format!("{}: nothing happened within {PATIENCE:?}", self.prefix))?
            .context("the group holds a sender itself")
    }
}
