//! `vdbi-nri-plugin doctor`, asked about real containerds.

use std::{
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Result, ensure};
use e2e::{
    Containerd, Nri, Options, Version, binary,
    cri::{ContainerSpec, PodSpec},
    scene::eventually,
};

use crate::{
    on,
    plugin::{Plugin, SECRET},
};

const PATIENCE: Duration = Duration::from_secs(30);

const VERSIONS: [Version; 3] = [Version::V1_7_24, Version::V1_7, Version::V2_4];

#[tokio::test]
async fn a_node_on_which_all_is_well_is_ready() -> Result<()> {
    on(&VERSIONS, async |version| {
        let containerd = Containerd::start(version, Options::default()).await?;
        let report = Report::on(containerd.socket(), containerd.nri_socket())?;
        println!("{}", report.text);
        let number = match version {
            Version::V1_7_24 => "1.7.24",
            Version::V1_7 => "1.7.",
            _ => "2.4.",
        };
        report.says("ok", &format!("containerd {number}"))?;
        report.says("ok", "its CRI plugin")?;
        report.says("ok", "its NRI plugin is loaded, which it is with `disable = true` as well")?;
        report.says("ok", "NRI is on")?;
        ensure!(report.has("warn", "before 2.2") == version.is_1_7(), "{}", report.text);
        ensure!(report.has("warn", "before 1.7.27") == (version == Version::V1_7_24), "{}", report.text);
        assert_eq!(report.code, Some(0), "{}", report.text);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_doctor_disturbs_neither_a_plugin_that_is_there_nor_one_that_comes() -> Result<()> {
    on(&VERSIONS, async |version| {
        // containerd takes one registration after the other: if it waited for the doctor's, no plugin would get in for so long.
        let nri = Nri { registration_timeout: Duration::from_secs(120), ..Nri::default() };
        let containerd = Containerd::start(version, Options { nri, ..Options::default() }).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let plugin = Plugin::connect(&containerd, "vdbi", "10").await?;
        for _ in 0..3 {
            Report::on(containerd.socket(), containerd.nri_socket())?;
        }
        let container = cri.run(&pod, &ContainerSpec::named("app")).await?;
        assert_eq!(container.variable("SECRET").await?.as_deref(), Some(SECRET));
        Report::on(containerd.socket(), containerd.nri_socket())?;
        Plugin::connect(&containerd, "other", "20").await?;
        assert_eq!(plugin.synchronizations(), 1, "it stayed connected");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn where_nri_is_off_only_the_socket_tells() -> Result<()> {
    on(&VERSIONS, async |version| {
        let nri = Nri { disabled: true, ..Nri::default() };
        let containerd = Containerd::start(version, Options { nri, ..Options::default() }).await?;
        let missing = Report::on(containerd.socket(), containerd.nri_socket())?;
        missing.says("ok", "its NRI plugin is loaded")?;
        missing.says("fail", "there is no socket")?;
        missing.says("fail", "set `disable = false`")?;
        assert_eq!(missing.code, Some(1));

        // As when NRI was on before.
        let stale = containerd.directory().join("stale.sock");
        drop(UnixListener::bind(&stale)?);
        let stale = Report::on(containerd.socket(), &stale)?;
        stale.says("fail", "nobody listens at")?;
        assert_eq!(stale.code, Some(1));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_containerd_that_hangs_or_does_not_run_fails() -> Result<()> {
    let mut containerd = Containerd::start(Version::V2_4, Options::default()).await?;
    containerd.server_mut().stop()?;
    let report = Report::on(containerd.socket(), containerd.nri_socket())?;
    report.says("fail", "no answer within")?;
    assert_eq!(report.code, Some(1));
    containerd.kill().await?;
    // Its sockets are open until the kernel has ended it.
    eventually(PATIENCE, async || {
        let report = Report::on(containerd.socket(), containerd.nri_socket())?;
        report.says("fail", "containerd does not run")?;
        report.says("fail", "nobody listens at")?;
        ensure!(report.code == Some(1), "it ended with {:?}", report.code);
        Ok(())
    })
    .await
}

#[test]
fn without_a_containerd_the_doctor_says_where_it_looked_and_what_to_do() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("containerd.sock");
    let report = Report::on(&socket, &directory.path().join("nri.sock"))?;
    report.says("fail", &format!("there is no socket {}: start containerd", socket.display()))?;
    assert_eq!(report.code, Some(1));
    Ok(())
}

#[test]
fn a_wrong_option_is_told_from_a_failure() -> Result<()> {
    let output = doctor(&["--contianerd"])?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("--containerd"), "{output:?}");
    Ok(())
}

struct Report {
    text: String,
    code: Option<i32>,
}

impl Report {
    fn on(containerd: &Path, nri_socket: &Path) -> Result<Self> {
        let text = |path: &Path| path.display().to_string();
        let output = doctor(&["--containerd", &text(containerd), "--nri-socket", &text(nri_socket)])?;
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { text: String::from_utf8(output.stdout)?, code: output.status.code() })
    }

    fn has(&self, severity: &str, words: &str) -> bool {
        self.text.lines().any(|line| line.starts_with(severity) && line.contains(words))
    }

    fn says(&self, severity: &str, words: &str) -> Result<()> {
        ensure!(self.has(severity, words), "no {severity} says {words:?}:\n{}", self.text);
        Ok(())
    }
}

fn doctor(arguments: &[&str]) -> Result<Output> {
    let path = binary("node-plugin", "vdbi-nri-plugin")?;
    Ok(Command::new(path).arg("doctor").args(arguments).env_clear().output()?)
}
