//! A network of a test's own, from which nothing leads out.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where servers listen that no pod has to reach.
pub(crate) const LOOPBACK: &str = "127.0.0.1";

/// The address of the host of the nodes, where pods reach what the test listens on.
pub const HOST: &str = "198.51.100.10";

/// Where nodes have their addresses: a range that is reserved for documentation, so that it is nobody's.
pub(crate) const NODES: &str = "198.51.100";

/// The range of the services' addresses.
pub(crate) const SERVICES: &str = "10.0.0.0/24";

/// The address of the API server's own service: the first of the range.
pub(crate) const KUBERNETES_SERVICE: &str = "10.0.0.1";

/// The name of the link that carries the nodes' addresses; only in a network of [`isolated`].
const LINK: &str = "nodes";

/// Runs a test, with whatever it starts, in a network of its own: a loopback interface and a link for nodes, without a default
/// route. A whole cluster needs one, as its addresses and firewall rules are the same each time.
///
/// The network has no name. It ends with the last process and thread in it, whatever ends these.
///
/// # Errors
///
/// The test's, or that the network could not be made: that takes root.
///
/// # Panics
///
/// As the test does.
pub fn isolated<T: Send>(test: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a whole cluster needs root, for network namespaces, mounts and cgroups: run this test as root"
    );
    let network = new()?;
    // A namespace belongs to a thread: those that this one starts, and the runtime's are among them, begin in the same.
    let run = || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(test())
    };
    match thread::scope(|scope| scope.spawn(run).join()) {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether the calling thread is in a network of [`isolated`].
pub(crate) fn is_isolated() -> Result<bool> {
    // The file shows the links of the thread that reads it.
    Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?.contains(&format!("{LINK}:")))
}

/// A process makes it and holds it until it is open here.
fn new() -> Result<File> {
    let script = format!(
        "set -e; PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; ip link add {LINK} type bridge; \
         ip address add {HOST}/24 dev {LINK}; ip address add {NODES}.11/24 dev {LINK}; \
         ip address add {NODES}.12/24 dev {LINK}; ip link set {LINK} up; ip route add {SERVICES} dev {LINK}; \
         echo 1 >/proc/sys/net/ipv4/ip_forward; echo made; read -r end"
    );
    let mut holder = Command::new("unshare")
        .args(["--net", "--", "/bin/sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("unshare could not be run")?;
    let output = holder.stdout.take().context("it has an output")?;
    let made = BufReader::new(output).lines().next().transpose()?;
    let network = File::open(format!("/proc/{}/ns/net", holder.id()));
    // It ends with its input.
    drop(holder.stdin.take());
    holder.wait()?;
    ensure!(
        made.as_deref() == Some("made"),
        "no network could be made: run `hack/test-env` (it installs iproute2), and see what ip has written"
    );
    Ok(network?)
}
