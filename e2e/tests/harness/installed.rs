use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result};
use e2e::{Version, installed::Installed};

#[test]
fn a_program_is_built_before_it_is_run() -> Result<()> {
    let path = e2e::binary("renewer", "vdbi-renewer")?;
    assert!(path.ends_with("debug/vdbi-renewer") && path.is_file(), "{}", path.display());
    let error = e2e::binary("renewer", "vdbi-unknown").err().context("it was built")?;
    assert!(error.to_string().contains("vdbi-unknown"), "{error}");
    Ok(())
}

#[test]
fn a_missing_server_is_reported_with_the_command_that_installs_it() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let nothing = |name: &str| (name == "HOME").then(|| OsString::from(empty.path()));
    let servers = [
        (Installed::KubeApiserver, "kube-apiserver"),
        (Installed::Kubelet, "kubelet"),
        (Installed::Containerd(Version::V2_2), "containerd"),
        (Installed::Ctr(Version::V1_7_24), "ctr"),
        (Installed::Runc, "runc"),
        (Installed::OpenBao, "bao"),
        (Installed::Helm, "helm"),
    ];
    for (server, name) in servers {
        let error = server.path_in(nothing).err().context("it was found")?;
        assert_eq!(
            error.to_string(),
            format!(
                "{name} was not found: run `hack/test-env` (it installs Kubernetes, containerd, OpenBao, PostgreSQL, Helm and Prometheus for the tests)"
            )
        );
    }
    Ok(())
}

#[test]
fn the_environment_wins_over_what_test_env_has_written() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let written = cache.path().join("a bao");
    fs::write(&written, "")?;
    fs::write(
        cache.path().join("env"),
        format!("VDBI_BAO={}\n", written.display().to_string().replace(' ', "\\ ")),
    )?;
    let environment = |name: &str| (name == "VDBI_CACHE").then(|| OsString::from(cache.path()));
    assert_eq!(Installed::OpenBao.path_in(environment)?, written);

    let own = cache.path().join("bao");
    fs::write(&own, "")?;
    let environment = |name: &str| (name == "VDBI_BAO").then(|| OsString::from(&own));
    assert_eq!(Installed::OpenBao.path_in(environment)?, own);
    Ok(())
}

#[test]
fn each_version_of_containerd_has_a_variable_of_its_own() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let variables =
        ["VDBI_CONTAINERD_1_7_24", "VDBI_CONTAINERD_1_7", "VDBI_CONTAINERD", "VDBI_CONTAINERD_2_4"];
    for variable in variables {
        let directory = cache.path().join(variable);
        fs::create_dir(&directory)?;
        fs::write(directory.join("containerd"), "")?;
    }
    let environment = |name: &str| Some(OsString::from(cache.path().join(name)));
    for (version, variable) in Version::ALL.into_iter().zip(variables) {
        let expected = cache.path().join(variable).join("containerd");
        assert_eq!(Installed::Containerd(version).path_in(environment)?, expected);
    }
    Ok(())
}
