use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::sync::{OnceLock, mpsc};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Program;

/// Starts a process that the kernel kills when this one ends, also when nothing of it can run any more.
pub(super) async fn spawn(program: &Program, log: &Path) -> Result<(Child, Pid)> {
    let output = OpenOptions::new().create(true).append(true).open(log)?;
    let (reply, started) = oneshot::channel();
    spawner()?
        .send(Order { command: command(program, output)?, runtime: Handle::current(), reply })
        .context("the thread that starts processes has ended")?;
    let child = started.await.context("the thread that starts processes has ended")??;
    let pid =
        child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the process ended at once")?;
    Ok((child, pid))
}

struct Order {
    command: Command,
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
                    let _ = order.reply.send(order.command.spawn());
                }
            };
            thread::Builder::new().name("spawner".into()).spawn(start_all).ok()?;
            Some(orders)
        })
        .as_ref()
        .context("no thread could be started")
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
