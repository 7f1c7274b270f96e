//! The reference binaries as a user meets them: command line, configuration, exit codes, output.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    process::{Command, Output},
    time::{Duration, Instant},
};

use e2e::{Component, binary};
use serde_json::Value;

fn run(component: Component, arguments: &[&str]) -> Output {
    let (package, program) = component.program();
    let path = binary(package, program).unwrap();
    Command::new(path).args(arguments).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_binary_says_its_name_and_version() {
    for component in Component::ALL {
        let output = run(component, &["--version"]);
        assert!(output.status.success());
        let expected = format!("{} {}\n", component.program().1, env!("CARGO_PKG_VERSION"));
        assert_eq!(text(&output.stdout), expected);
    }
}

/// So that a program of a single component can take the place of the one of all of them, in its image and in the chart.
#[test]
fn a_component_takes_its_own_name_as_its_first_argument_and_no_other() {
    let injector = |arguments: &[&str]| run(Component::Injector, arguments);
    assert_eq!(text(&injector(&["injector", "--version"]).stdout), text(&injector(&["--version"]).stdout));
    for wrong in [&["renewer", "--version"][..], &["injector", "injector", "--version"]] {
        assert_eq!(injector(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn one_program_is_every_component_by_its_argument_and_by_its_name() {
    let vdbi = binary("vdbi", "vdbi").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let unknown = Command::new(&vdbi).arg("renewr").env_clear().output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    for component in Component::ALL {
        let name = component.program().1;
        let argument = name.trim_start_matches("vdbi-");
        assert!(text(&unknown.stderr).contains(&format!("  {argument} ")), "{unknown:?}");
        let link = directory.path().join(name);
        std::os::unix::fs::symlink(&vdbi, &link).unwrap();
        let by_argument = Command::new(&vdbi).args([argument, "--version"]).env_clear().output().unwrap();
        let by_name = Command::new(&link).arg("--version").env_clear().output().unwrap();
        for output in [by_argument, by_name] {
            assert_eq!(text(&output.stdout), format!("{name} {}\n", env!("CARGO_PKG_VERSION")), "{output:?}");
        }
    }
}

#[test]
fn a_wrong_command_line_or_configuration_ends_with_2_and_says_what_to_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    fs::write(&file, "mode: injector\nvaultAddres: http://127.0.0.1:8200\n").unwrap();
    let path = file.to_str().unwrap();
    // The Go product's spelling of the option is understood, too.
    for option in ["--config", "-config"] {
        let output = run(Component::Renewer, &[option, path]);
        assert_eq!(output.status.code(), Some(2));
        let error = text(&output.stderr);
        for words in [
            "mode: injector is another component, and this is vdbi-renewer",
            "unknown key vaultAddres (line 2): did you mean vaultAddress?",
            "kubeRole: it is required",
        ] {
            assert!(error.contains(words), "{error} lacks {words}");
        }
    }
    let output = run(Component::Revoker, &["--confg", path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--config"), "{output:?}");
}

#[test]
fn timings_that_cannot_be_safe_and_a_missing_namespace_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    for (leader_election, words) in [
        ("{ leaseNamespace: vdbi, leaseDuration: 12s }", "below the lease duration"),
        ("{ leaseNamespace: vdbi, leaseDuration: 14s }", "abort"),
        ("{ leaseNamespace: vdbi, renewInterval: 9s }", "hard deadline"),
        ("{ leaseNamespace: vdbi, leaseDuration: 15500ms }", "whole seconds"),
        (
            "{ leaseDuration: 15s }",
            "leaderElection.leaseNamespace: it is required where POD_NAMESPACE is not set",
        ),
    ] {
        let configuration = format!(
            "{{ vaultAddress: 'http://127.0.0.1:1', kubeRole: r, vaultSecretName: n, vaultSecretPrefix: p, \
             leaderElection: {leader_election} }}"
        );
        fs::write(&file, configuration).unwrap();
        let output = run(Component::Renewer, &["--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{leader_election}: {output:?}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn a_component_that_cannot_start_ends_with_1_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    let configuration = "{ vaultAddress: 'http://127.0.0.1:1', kubeRole: r, vaultSecretName: n, vaultSecretPrefix: p, \
                         adminAddress: '127.0.0.1:0', metricsAddress: '127.0.0.1:0', certFile: /no/such/tls.crt, \
                         keyFile: /no/such/tls.key, admissionAddress: '127.0.0.1:0' }";
    fs::write(&file, configuration).unwrap();
    let output = run(Component::Injector, &["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("/no/such/tls.crt (certFile)"), "{}", text(&output.stdout));
}

#[test]
fn the_quickstart_tells_its_story_within_twenty_seconds() {
    tells_its_story(&["--json"]);
}

#[test]
fn the_quickstart_tells_the_same_story_over_real_servers() {
    tells_its_story(&["--json", "--openbao"]);
}

fn tells_its_story(arguments: &[&str]) {
    let path = binary("quickstart", "quickstart").unwrap();
    let started = Instant::now();
    let output = Command::new(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let steps: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    for name in
        ["admitted", "denied", "login", "renewed", "killed", "took over", "survived", "revoked", "summary"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!text(&output.stdout).contains("PASSWORD="), "machines get no patch");
}
