use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{OnceLock, mpsc};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Program;

/// Starts a process that the kernel kills when this one ends, also when nothing of it can run any more. It is in the network of
/// the thread that asks for it.
pub(super) async fn spawn(program: &Program, log: &Path) -> Result<(Child, Pid)> {
    let output = OpenOptions::new().create(true).append(true).open(log)?;
    let (reply, started) = oneshot::channel();
    spawner()?
        .send(Order {
            command: command(program, output)?,
            network: Network::of_this_thread()?,
            runtime: Handle::current(),
            reply,
        })
        .context("the thread that starts processes has ended")?;
    let child = started.await.context("the thread that starts processes has ended")??;
    let pid =
        child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the process ended at once")?;
    Ok((child, pid))
}

struct Order {
    command: Command,
    network: Network,
    runtime: Handle,
    reply: oneshot::Sender<std::io::Result<Child>>,
}

/// The parent-death signal is sent when the *thread* that started the process ends, and a test's thread ends with its test: so
/// one thread starts them all, and lives as long as this process.
fn spawner() -> Result<&'static mpsc::Sender<Order>> {
    static SPAWNER: OnceLock<Option<mpsc::Sender<Order>>> = OnceLock::new();
    SPAWNER
        .get_or_init(|| {
            let (orders, inbox) = mpsc::channel::<Order>();
            let start_all = move || {
                for mut order in inbox {
                    let _runtime = order.runtime.enter();
                    let started = order.network.enter().and_then(|()| order.command.spawn());
                    let _ = order.reply.send(started);
                }
            };
            thread::Builder::new().name("spawner".into()).spawn(start_all).ok()?;
            Some(orders)
        })
        .as_ref()
        .context("no thread could be started")
}

/// The network namespace of a thread.
struct Network(File);

impl Network {
    fn of_this_thread() -> std::io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    fn enter(&self) -> std::io::Result<()> {
        // Only root may enter one, were it the thread's own.
        if Self::of_this_thread()?.0.metadata()?.ino() != self.0.metadata()?.ino() {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        Ok(())
    }
}

fn command(program: &Program, output: File) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL"]);
    if let Some(user) = &program.user {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
    }
    command
        .arg("--")
        .arg(&program.path)
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true);
    Ok(command)
}
