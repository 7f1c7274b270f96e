//! What the facts mean. No I/O.

use std::{fmt, io::ErrorKind, path::Path};

use vdbi_nri::stub::{Runtime, why_not_connected};

use super::examine::{Answers, Closed, Extension, Facts};

const NRI: &str = "io.containerd.nri.v1";
/// The one that kubelets talk to, in every version; from 2.0 on it is in three parts.
const CRI: (&str, &str) = ("io.containerd.grpc.v1", "cri");
const CRI_PARTS: &str = "io.containerd.cri.v1";

/// One line of the report.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    text: String,
}

/// What a finding means for the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// The plugin works, and something is to be known.
    Warn,
    /// The plugin cannot work.
    Fail,
}

/// What a person has to know, from containerd to its socket for plugins.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = match &facts.answers {
        Answers::Unreachable(closed) => vec![fail(unreachable(closed, &facts.containerd))],
        Answers::Mute(reason) => vec![fail(format!(
            "something listens at {}, but does not say which containerd it is ({reason}): look into containerd's log, and whether this \
             is its socket",
            facts.containerd.display()
        ))],
        Answers::Known { version, plugins } => {
            let mut findings =
                vec![ok(format!("containerd {version} answers at {}", facts.containerd.display()))];
            findings.extend(of_version(version));
            match plugins {
                Ok(plugins) => findings.extend([cri(plugins), nri(plugins)]),
                Err(reason) => findings.push(warn(format!("containerd does not tell its plugins: {reason}"))),
            }
            findings
        }
    };
    findings.push(nri_socket(facts));
    findings
}

fn of_version(version: &str) -> Vec<Finding> {
    let runtime = Runtime::containerd(version);
    if !runtime.at_least(0, 0, 0) {
        return vec![warn(format!(
            "{version:?} is no version that can be compared: 1.7.20 or newer is needed"
        ))];
    }
    if !runtime.at_least(1, 7, 20) {
        return vec![fail(format!(
            "containerd {version} is too old, and its NRI another one: install 1.7.20 or newer, better 2.2"
        ))];
    }
    if runtime.at_least(2, 2, 0) {
        return vec![ok(
            "it is new enough, also to validate what plugins adjust and to require plugins (docs/node-plugin.md: What if the plugin \
             is not there)",
        )];
    }
    let mut findings = vec![ok("it is new enough")];
    if !runtime.at_least(1, 7, 27) {
        findings.push(warn(
            "before 1.7.27 it removes no mounts: in place of the tripwire, the plugin mounts the real /proc/uptime. Nothing to do",
        ));
    }
    findings.push(warn(
        "before 2.2 it neither validates what plugins adjust nor requires plugins: only the tripwire keeps an application from \
         starting with a placeholder while the plugin is away. Keep nri.tripwire on",
    ));
    findings
}

fn cri(plugins: &[Extension]) -> Finding {
    let is_whole = |plugin: &&Extension| (plugin.kind.as_str(), plugin.id.as_str()) == CRI;
    let mut parts = plugins.iter().filter(|plugin| is_whole(plugin) || plugin.kind == CRI_PARTS);
    if !plugins.iter().any(|plugin| is_whole(&plugin)) {
        return fail(
            "its CRI plugin is not loaded, so that no kubelet uses this containerd: remove \"cri\" from disabled_plugins in its \
             configuration (Docker's packages put it there), or give --containerd the socket of the kubelet's one",
        );
    }
    match parts.find_map(|plugin| plugin.failure.as_ref().map(|why| (plugin, why))) {
        Some((Extension { kind, id, .. }, why)) => fail(format!(
            "its CRI plugin {kind}.{id} did not start ({why}): repair that in its configuration"
        )),
        None => ok("its CRI plugin, which kubelets talk to, is loaded"),
    }
}

fn nri(plugins: &[Extension]) -> Finding {
    let Some(plugin) = plugins.iter().find(|plugin| plugin.kind == NRI) else {
        return fail(format!(
            "its NRI plugin is not loaded: remove \"{NRI}.nri\" from disabled_plugins in its configuration, and start it again"
        ));
    };
    match &plugin.failure {
        Some(why) => fail(format!("its NRI plugin did not start ({why}): repair that in its configuration")),
        None => ok(
            "its NRI plugin is loaded, which it is with `disable = true` as well: the next line tells whether NRI is on",
        ),
    }
}

fn nri_socket(Facts { nri_socket: socket, nri, answers, .. }: &Facts) -> Finding {
    let error = match nri {
        Ok(()) => return ok(format!("NRI is on: {} accepts connections", socket.display())),
        Err(Closed::NotASocket) => return fail(not_a_socket(socket)),
        Err(Closed::Unconnected(error)) => error,
    };
    let lacks = match error.kind() {
        ErrorKind::NotFound => "there is no socket",
        ErrorKind::ConnectionRefused => "nobody listens at",
        _ => return fail(why_not_connected(error, socket)),
    };
    match answers {
        Answers::Known { .. } => fail(format!(
            "NRI is off or elsewhere, as containerd runs and {lacks} {}: set `disable = false` (by default only from 2.0 on) and \
             `disable_connections = false` in [plugins.\"{NRI}.nri\"] of its configuration, compare `socket_path` there, and start it \
             again",
            socket.display()
        )),
        Answers::Unreachable(_) | Answers::Mute(_) => fail(why_not_connected(error, socket)),
    }
}

fn unreachable(closed: &Closed, socket: &Path) -> String {
    let Closed::Unconnected(error) = closed else { return not_a_socket(socket) };
    let socket = socket.display();
    match error.kind() {
        ErrorKind::NotFound => format!(
            "there is no socket {socket}: start containerd, or say where it is with --containerd (k3s has \
             /run/k3s/containerd/containerd.sock); in a container, mount its directory"
        ),
        ErrorKind::ConnectionRefused => {
            format!("nobody listens at {socket}: containerd does not run. Start it, and look into its log")
        }
        ErrorKind::PermissionDenied => format!("{socket} may not be opened: run this as root"),
        _ => format!("{socket} cannot be opened: {error}"),
    }
}

fn not_a_socket(path: &Path) -> String {
    format!(
        "{} is not a socket: was it made by a hostPath volume before containerd ran? Remove it",
        path.display()
    )
}

fn ok(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Ok, text: text.into() }
}

fn warn(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warn, text: text.into() }
}

fn fail(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Fail, text: text.into() }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok  ",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        };
        write!(f, "{severity}  {}", self.text)
    }
}

#[cfg(test)]
mod tests;
