//! Child processes that never outlive the test that started them.

mod program;
mod spawner;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process};
use tokio::process::Child;
use tokio::time::{Instant, timeout};

pub use program::Program;

const LOG_LINES_IN_ERRORS: usize = 25;
const POLL: Duration = Duration::from_millis(20);

/// A running server with a log of its own; it is killed when dropped, and by the kernel when this process ends in any way.
#[derive(Debug)]
pub struct Server {
    name: String,
    program: Program,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl Server {
    /// Starts a program, with its output in `<directory>/<name>.log`; whether it is ready is [`Server::ready`]'s question.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn start(name: &str, program: Program, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let (child, pid) =
            spawner::spawn(&program, &log).await.with_context(|| format!("{name} could not be started"))?;
        Ok(Self { name: name.to_owned(), program, child, pid, log })
    }

    /// The id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until `check` says that the server is ready.
    ///
    /// # Errors
    ///
    /// When the process ends or the time passes before that; the error carries the end of the log, and what `check` said last.
    pub async fn ready(&mut self, within: Duration, check: impl AsyncFn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            // A check against a server that accepts and never answers must not hang.
            let outcome = timeout(within, check()).await.context("no answer").flatten();
            let Err(error) = outcome else { return Ok(()) };
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it was ready\n{}",
                    self.name,
                    self.log_tail(LOG_LINES_IN_ERRORS)
                );
            }
            if Instant::now() >= deadline {
                let log = self.log_tail(LOG_LINES_IN_ERRORS);
                return Err(error.context(format!("{} was not ready within {within:?}\n{log}", self.name)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the server has written this to its log.
    ///
    /// # Errors
    ///
    /// As [`Server::ready`].
    pub async fn logged(&mut self, text: &str, within: Duration) -> Result<()> {
        let log = self.log.clone();
        let check = async || {
            ensure!(read_log(&log)?.contains(text), "it has not written: {text}");
            Ok(())
        };
        self.ready(within, check).await
    }

    /// Asks the process to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    ///
    /// When it still runs after that time, or had ended before.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(within).await
    }

    /// Ends the process at once (SIGKILL) and waits for it; it is no error when it had ended before.
    ///
    /// # Errors
    ///
    /// When the process cannot be waited for.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none()
            && let Some(forked) = self.forked()
        {
            // It may have ended meanwhile.
            let _ = kill_process(forked, Signal::KILL);
        }
        self.child.start_kill()?;
        Ok(self.child.wait().await?)
    }

    /// Freezes the process (SIGSTOP), as a partition or an overloaded node would.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn cont(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends any other signal.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // Until it is reaped the id cannot belong to another process, and only this value reaps it.
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has already ended with {status}\n{}", self.name, self.log_tail(LOG_LINES_IN_ERRORS));
        }
        if let Some(forked) = self.forked() {
            kill_process(forked, signal)
                .with_context(|| format!("what {} runs could not be signalled", self.name))?;
            // It stops and goes on with what it waits for, and ends after it.
            if signal != Signal::CONT {
                return Ok(());
            }
        }
        kill_process(self.pid, signal).with_context(|| format!("{} could not be signalled", self.name))
    }

    /// The process that a program which forks waits for.
    fn forked(&self) -> Option<Pid> {
        if !self.program.forks {
            return None;
        }
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    ///
    /// When it still runs after that time; it goes on running.
    pub async fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        match timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                bail!("{} still runs after {within:?}\n{}", self.name, self.log_tail(LOG_LINES_IN_ERRORS))
            }
        }
    }

    /// Whether the process runs; a frozen one does.
    ///
    /// # Errors
    ///
    /// When the process cannot be asked for.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Starts the program again, with the same arguments and the same log, after it has ended.
    ///
    /// # Errors
    ///
    /// When it still runs, or cannot be started.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(!self.is_running()?, "{} still runs: terminate or kill it first", self.name);
        (self.child, self.pid) = spawner::spawn(&self.program, &self.log).await?;
        Ok(())
    }

    /// What the server has written so far.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        read_log(&self.log)
    }

    /// The last lines of what the server has written.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log().unwrap_or_else(|error| error.to_string());
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.start_kill();
            // Waits without reaping, which stays tokio's: the ports and files are free when this returns.
            let _ =
                rustix::process::waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = self.child.try_wait();
        }
    }
}

fn read_log(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("{} could not be read", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
