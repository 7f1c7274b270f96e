use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Program, Server};

const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(20);

/// Where cgroups are: the only trace of a machine that the kernel does not remove with its processes.
const CGROUPS: &str = "/sys/fs/cgroup";
const CGROUP_PREFIX: &str = "vdbi-";

/// What the first process of a machine does: it makes the places that programs of a node write to, and waits for orphans, of which
/// every container leaves some. What is written there is gone with the machine.
const INIT: &str = "set -e
mount -t tmpfs -o mode=755 node /run
mount -t tmpfs -o mode=755 node /var/log
if [ -n \"$1\" ]; then mount --bind \"$1\" /var/lib; else mount -t tmpfs -o mode=755 node /var/lib; fi
echo started
while :; do sleep 3600 & wait $!; done";

/// Mounts and process ids apart from everything else. Its programs, with all that these start and mount, end with its first
/// process, and that ends with this value or with the test's own process.
#[derive(Debug)]
pub(crate) struct Machine {
    // Only to be dropped.
    _holder: Server,
    init: Pid,
    cgroup: String,
}

impl Machine {
    /// With what its programs keep on a disk: a kubelet measures nothing else.
    pub(crate) async fn on_disk(name: &str, directory: &Path) -> Result<Self> {
        let disk = directory.join("disk");
        fs::create_dir(&disk)?;
        Self::start(name, directory, Some(&disk)).await
    }

    /// With what its programs keep in memory, which is faster.
    pub(crate) async fn in_memory(name: &str, directory: &Path) -> Result<Self> {
        Self::start(name, directory, None).await
    }

    async fn start(name: &str, directory: &Path, disk: Option<&Path>) -> Result<Self> {
        let program = Program::new("unshare", directory)
            .args(["--mount", "--propagation=private", "--pid", "--kill-child=SIGKILL", "--mount-proc", "--"])
            .args(["/bin/sh", "-c", INIT, "init"])
            .arg(disk.unwrap_or(Path::new("")));
        let mut holder = Server::start("machine", program, directory).await?;
        holder.logged("started", START).await?;
        let pid = holder.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let init = children.split_whitespace().next().context("a machine has a first process")?.parse()?;
        let init = Pid::from_raw(init).context("a process has an id")?;
        // Unique for as long as it is used.
        let machine = Self { _holder: holder, init, cgroup: format!("{CGROUP_PREFIX}{name}-{pid}") };
        remove_stale_cgroups();
        for hierarchy in hierarchies() {
            fs::create_dir(hierarchy.join(&machine.cgroup))?;
        }
        Ok(machine)
    }

    /// The name of its cgroup, in which its containers are.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A program in it.
    pub(crate) fn program(&self, path: &Path, directory: &Path) -> Program {
        Program::new("nsenter", directory)
            .forks()
            .arg(format!("--target={}", self.init.as_raw_nonzero()))
            .args(["--mount", "--pid", "--", "setpriv", "--pdeathsig", "SIGKILL", "--"])
            .arg(path)
            .env("PATH", search_path())
    }
}

/// The programs of a node and of its network run others, which are in directories that not every `PATH` has.
pub(crate) fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The holder has not ended, and waits for this process: the id is still its own. The kernel ends every other process of
        // the machine before this one is gone.
        let _ = kill_process(self.init, Signal::KILL);
        let started = Instant::now();
        while is_running(self.init) && started.elapsed() < END {
            std::thread::sleep(Duration::from_millis(5));
        }
        for hierarchy in hierarchies() {
            remove(&hierarchy.join(&self.cgroup));
        }
    }
}

fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_ok_and(|status| !status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// The second version has one, the first one for each controller.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(CGROUPS).join("cgroup.procs").exists() {
        return vec![CGROUPS.into()];
    }
    fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes the empty cgroups of nodes whose tests were killed, as every start of a node does.
pub fn remove_stale_cgroups() {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(CGROUP_PREFIX)) else { continue };
            // The name ends with the id of the process that held the machine.
            let holder = name.rsplit('-').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
            if holder.is_some_and(|holder| !is_running(holder)) {
                remove(&entry.path());
            }
        }
    }
}

/// Removes a cgroup with those below it, of which only directories can be removed.
fn remove(cgroup: &Path) {
    let Ok(entries) = fs::read_dir(cgroup) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(cgroup) {
        eprintln!("{} could not be removed: {error}", cgroup.display());
    }
}
