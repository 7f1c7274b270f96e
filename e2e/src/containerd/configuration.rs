//! What containerd is told, in the words of each version.

use std::{fmt::Write, path::Path};

use anyhow::{Result, ensure};

use super::{Nri, Version};
use crate::{image::IMAGE, installed::Installed};

/// Where one containerd listens, and what it has.
pub(super) struct Configuration<'a> {
    pub(super) version: Version,
    pub(super) socket: &'a Path,
    pub(super) nri_socket: &'a Path,
    pub(super) nri: &'a Nri,
    /// The configurations of the network plugins; a pod that has the node's network needs none.
    pub(super) networks: &'a Path,
}

impl Configuration<'_> {
    /// The text of the file.
    pub(super) fn text(&self) -> Result<String> {
        let format = if self.version.is_1_7() { 2 } else { 3 };
        let cri = if self.version.is_1_7() { self.cri_1_7()? } else { self.cri()? };
        Ok(format!(
            r#"version = {format}
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs",
]
[grpc]
  address = "{socket}"
[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd-opt"
{cri}{nri}"#,
            socket = self.socket.display(),
            nri = self.nri()?,
        ))
    }

    fn cri(&self) -> Result<String> {
        let (runc, bridge) = (Installed::Runc.path()?, Installed::CniBridge.path()?);
        Ok(format!(
            r#"[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = "/var/lib/containerd-verifiers"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  cdi_spec_dirs = ["/run/cdi"]
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{networks}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
[plugins.'io.containerd.grpc.v1.cri']
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"#,
            plugins = directory(&bridge).display(),
            networks = self.networks.display(),
            runc = runc.display(),
        ))
    }

    fn cri_1_7(&self) -> Result<String> {
        let (runc, bridge) = (Installed::Runc.path()?, Installed::CniBridge.path()?);
        Ok(format!(
            r#"[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = "{IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
  [plugins.'io.containerd.grpc.v1.cri'.containerd]
    snapshotter = "overlayfs"
    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"#,
            plugins = directory(&bridge).display(),
            networks = self.networks.display(),
            runc = runc.display(),
        ))
    }

    fn nri(&self) -> Result<String> {
        let Nri { disabled, registration_timeout, request_timeout, default_validator } = self.nri;
        let mut text = format!(
            r#"[plugins.'io.containerd.nri.v1.nri']
  disable = {disabled}
  disable_connections = false
  plugin_config_path = "/var/lib/nri/conf.d"
  plugin_path = "/var/lib/nri/plugins"
  plugin_registration_timeout = "{}ms"
  plugin_request_timeout = "{}ms"
  socket_path = "{}"
"#,
            registration_timeout.as_millis(),
            request_timeout.as_millis(),
            self.nri_socket.display(),
        );
        if let Some(required) = default_validator {
            ensure!(
                !self.version.is_1_7(),
                "containerd {:?} has no validator: that takes 2.2 or newer",
                self.version
            );
            write!(
                text,
                r#"  [plugins.'io.containerd.nri.v1.nri'.default_validator]
    enable = true
    required_plugins = {required:?}
"#
            )?;
        }
        Ok(text)
    }
}

fn directory(program: &Path) -> &Path {
    program.parent().unwrap_or(program)
}
