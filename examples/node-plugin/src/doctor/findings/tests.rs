use std::io;

use super::*;

/// A node on which all is well.
fn node(version: &str) -> Facts {
    let plugins = vec![plugin("io.containerd.grpc.v1", "cri"), plugin(NRI, "nri")];
    Facts {
        containerd: "/run/containerd/containerd.sock".into(),
        nri_socket: "/var/run/nri/nri.sock".into(),
        answers: Answers::Known { version: version.to_owned(), plugins: Ok(plugins) },
        nri: Ok(()),
    }
}

fn plugin(kind: &str, id: &str) -> Extension {
    Extension { kind: kind.to_owned(), id: id.to_owned(), failure: None }
}

fn with_plugins(change: impl FnOnce(&mut Vec<Extension>)) -> Facts {
    let mut facts = node("2.4.2");
    if let Answers::Known { plugins: Ok(plugins), .. } = &mut facts.answers {
        change(plugins);
    }
    facts
}

fn unconnected(kind: ErrorKind) -> Closed {
    Closed::Unconnected(io::Error::from(kind))
}

/// The one finding that is a failure.
fn failure(facts: &Facts) -> String {
    let findings = judge(facts);
    let mut failures = findings.iter().filter(|finding| finding.severity == Severity::Fail);
    let failure = failures.next().unwrap_or_else(|| panic!("nothing fails: {findings:?}"));
    assert!(failures.next().is_none(), "{findings:?}");
    failure.to_string()
}

fn warnings(version: &str) -> usize {
    let findings = judge(&node(version));
    assert!(findings.iter().all(|finding| finding.severity != Severity::Fail), "{findings:?}");
    findings.iter().filter(|finding| finding.severity == Severity::Warn).count()
}

#[test]
fn each_version_has_the_warnings_for_what_it_lacks() {
    for (version, count) in [
        ("1.7.20", 2),
        ("1.7.24~ds1", 2),
        ("1.7.27", 1),
        ("2.1.9+unknown", 1),
        ("2.2.0", 0),
        ("v2.4.2", 0),
        ("3.0.0", 0),
    ] {
        assert_eq!(warnings(version), count, "{version}");
    }
}

#[test]
fn a_version_that_is_too_old_fails() {
    for version in ["1.7.19", "1.6.36", "0.9"] {
        assert!(failure(&node(version)).contains("too old"), "{version}");
    }
}

#[test]
fn a_version_that_is_no_number_is_a_warning() {
    assert_eq!((warnings(""), warnings("main")), (1, 1));
}

#[test]
fn a_ready_node_is_told_that_introspection_cannot_tell_whether_nri_is_on() {
    let report: Vec<String> = judge(&node("2.4.2")).iter().map(Finding::to_string).collect();
    assert!(report.iter().all(|line| line.starts_with("ok    ") && !line.contains('\n')), "{report:?}");
    assert!(report.iter().any(|line| line.contains("with `disable = true` as well")), "{report:?}");
    assert!(report.last().unwrap().contains("NRI is on"), "{report:?}");
}

#[test]
fn a_plugin_of_containerd_that_is_missing_is_among_the_disabled_ones() {
    let facts = with_plugins(|plugins| plugins.retain(|plugin| plugin.kind != NRI));
    assert!(failure(&facts).contains("remove \"io.containerd.nri.v1.nri\" from disabled_plugins"));
    let facts = with_plugins(|plugins| plugins.retain(|plugin| plugin.kind == NRI));
    assert!(failure(&facts).contains("remove \"cri\" from disabled_plugins"));
}

#[test]
fn a_plugin_of_containerd_that_did_not_start_says_why() {
    for failing in [(NRI, "nri"), ("io.containerd.grpc.v1", "cri"), (CRI_PARTS, "runtime")] {
        let facts = with_plugins(|plugins| {
            plugins.retain(|plugin| (plugin.kind.as_str(), plugin.id.as_str()) != failing);
            let failure = Some("no such snapshotter".to_owned());
            plugins.push(Extension { failure, ..plugin(failing.0, failing.1) });
        });
        let failure = failure(&facts);
        assert!(failure.contains("did not start (no such snapshotter)"), "{failing:?}: {failure}");
    }
}

#[test]
fn a_socket_for_plugins_that_is_not_there_is_explained_by_what_containerd_says() {
    for kind in [ErrorKind::NotFound, ErrorKind::ConnectionRefused] {
        let mut facts = node("1.7.29");
        facts.nri = Err(unconnected(kind));
        assert!(failure(&facts).contains("disable = false"), "{kind:?}");
    }
    let mut facts = node("2.4.2");
    facts.nri = Err(unconnected(ErrorKind::PermissionDenied));
    let forbidden = failure(&facts);
    assert!(forbidden.contains("as root") && !forbidden.contains("disable"), "{forbidden}");
    facts.nri = Err(Closed::NotASocket);
    assert!(failure(&facts).contains("/var/run/nri/nri.sock is not a socket"));
}

#[test]
fn a_containerd_that_cannot_be_reached_is_explained() {
    for (closed, words) in [
        (unconnected(ErrorKind::NotFound), "start containerd, or say where it is with --containerd"),
        (unconnected(ErrorKind::ConnectionRefused), "containerd does not run"),
        (unconnected(ErrorKind::PermissionDenied), "run this as root"),
        (Closed::NotASocket, "is not a socket"),
    ] {
        let facts = Facts { answers: Answers::Unreachable(closed), ..node("") };
        let failure = failure(&facts);
        assert!(failure.contains("/run/containerd/containerd.sock") && failure.contains(words), "{failure}");
    }
}

#[test]
fn a_containerd_that_does_not_answer_fails() {
    let facts = Facts { answers: Answers::Mute("no answer within 5s".to_owned()), ..node("") };
    assert!(failure(&facts).contains("no answer within 5s"));
}
