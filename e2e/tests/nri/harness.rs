use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Containerd, Nri, Options, Version,
    cri::{ContainerSpec, ContainerState, PodSpec},
};

use crate::on;

const AT_ONCE: Duration = Duration::from_secs(0);

#[tokio::test]
async fn a_container_runs_and_nothing_is_left_of_its_containerd() -> Result<()> {
    on(&Version::ALL, async |version| {
        let image_env = vec![("OF_IMAGE".to_owned(), "an image".to_owned())];
        let containerd = Containerd::start(version, Options { image_env, ..Options::default() }).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web").label("app", "web").annotation("key", "value")).await?;
        let shared = containerd.directory().join("shared");
        fs::write(&shared, "")?;
        let spec = ContainerSpec::named("app").env("NAME", "a value").mount(&shared, "/shared");
        let container = cri.run(&pod, &spec).await?;
        assert_eq!(container.variable("NAME").await?.as_deref(), Some("a value"));
        assert_eq!(container.variable("OF_IMAGE").await?.as_deref(), Some("an image"));
        assert_eq!(container.variable("OTHER").await?, None);
        let said = cri.exec(&container, &["sh", "-c", "echo $NAME; echo on >/shared; exit 3"]).await?;
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (3, "a value\n", ""));
        assert_eq!(fs::read_to_string(&shared)?, "on\n");

        let second = cri.create(&pod, &ContainerSpec::named("second")).await?;
        assert_eq!(cri.status(&second).await?.state(), ContainerState::ContainerCreated);
        cri.remove(&second).await?;
        assert_eq!(cri.containers().await?.len(), 1);
        let error = cri.status(&second).await.err().context("it is still there")?;
        assert_eq!(error.code(), tonic::Code::NotFound, "{error}");

        let (directory, cgroup) = (containerd.directory().to_owned(), containerd.cgroup().to_owned());
        ensure!(traces(&directory, &cgroup)?.len() >= 3, "a containerd, a shim and a container are seen");
        drop(containerd);
        assert_eq!(traces(&directory, &cgroup)?, [""; 0]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn containers_go_on_while_containerd_is_ended_or_killed_and_started_again() -> Result<()> {
    on(&Version::ALL, async |version| {
        let mut containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let container = cri.run(&pod, &ContainerSpec::named("app")).await?;
        let started = cri.status(&container).await?.started_at;
        containerd.restart().await?;
        containerd.kill().await?;
        ensure!(cri.containers().await.is_err(), "a killed containerd answers");
        containerd.start_again().await?;
        let status = cri.status(&container).await?;
        assert_eq!((status.state(), status.started_at), (ContainerState::ContainerRunning, started));
        assert_eq!(cri.exec(&container, &["sh", "-c", "echo here"]).await?.stdout, "here\n");

        cri.stop(&container, AT_ONCE).await?;
        assert_eq!(cri.status(&container).await?.state(), ContainerState::ContainerExited);
        cri.stop_pod(&pod).await?;
        cri.remove_pod(&pod).await?;
        assert_eq!((cri.pods().await?.len(), cri.containers().await?.len()), (0, 0));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_whose_required_plugin_is_missing_is_refused() -> Result<()> {
    on(&[Version::V2_2, Version::V2_4], async |version| {
        let nri = Nri { default_validator: Some(vec!["vdbi".to_owned()]), ..Nri::default() };
        let containerd = Containerd::start(version, Options { nri, ..Options::default() }).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let error = cri.create(&pod, &ContainerSpec::named("app")).await.err().context("it was made")?;
        assert!(error.message().contains(r#"required plugin "vdbi" not present"#), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_whose_pod_requires_a_missing_plugin_is_refused() -> Result<()> {
    on(&[Version::V2_2, Version::V2_4], async |version| {
        let nri = Nri { default_validator: Some(Vec::new()), ..Nri::default() };
        let containerd = Containerd::start(version, Options { nri, ..Options::default() }).await?;
        let cri = containerd.cri().await?;
        let free = cri.run_pod(&PodSpec::named("free")).await?;
        cri.create(&free, &ContainerSpec::named("app")).await?;
        let pod = PodSpec::named("web").annotation("required-plugins.noderesource.dev", r#"["vdbi"]"#);
        let pod = cri.run_pod(&pod).await?;
        let error = cri.create(&pod, &ContainerSpec::named("app")).await.err().context("it was made")?;
        assert!(error.message().contains(r#"required plugin "vdbi" not present"#), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_version_without_validators_is_not_asked_for_one() -> Result<()> {
    let nri = Nri { default_validator: Some(Vec::new()), ..Nri::default() };
    let Err(error) = Containerd::start(Version::V1_7, Options { nri, ..Options::default() }).await else {
        bail!("it started");
    };
    assert!(format!("{error:#}").contains("no validator"), "{error:#}");
    Ok(())
}

/// What is on this machine of a containerd: its processes, mounts and cgroups.
fn traces(directory: &Path, cgroup: &str) -> Result<Vec<String>> {
    let directory = directory.to_str().context("it is a text")?;
    let mut traces = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let about = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let command = about("cmdline").replace('\0', " ");
        if command.contains(directory) || about("cgroup").contains(cgroup) {
            traces.push(format!("process {name}: {command}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    traces.extend(mounts.lines().filter(|mount| mount.contains(directory)).map(str::to_owned));
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let own = hierarchy.path().join(cgroup);
        // A second-version one has them at its root.
        let own = if hierarchy.file_name() == cgroup { hierarchy.path() } else { own };
        if own.exists() {
            traces.push(format!("cgroup {}", own.display()));
        }
    }
    Ok(traces)
}
