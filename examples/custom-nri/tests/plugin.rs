//! The plugin over a runtime of the tests'. No container runtime is needed.

// ANCHOR: beginning
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::Path, time::Duration};

use custom_nri::{ANNOTATION, NodeFacts};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::timeout};
use vdbi_core::metrics::Registry;
use vdbi_nri::{
    stub::{Container, Pod, Settings, Stub},
    testing::{FakeRuntime, PluginConnection, container_injector},
};

const FACTS: &str = "# Of the cloud's metadata.\nzone=eu-west-1a\n\ninstance-type = m6i.large\n";

fn pod(facts: &str) -> Pod {
    let mut pod = Pod::default();
    pod.id = "sandbox".to_owned();
    pod.annotations.insert(ANNOTATION.to_owned(), facts.to_owned());
    pod
}

fn container(env: &[&str]) -> Container {
    let env = env.iter().map(ToString::to_string).collect();
    let mut container = Container::default();
    (container.id, container.name, container.env) = ("1".to_owned(), "web".to_owned(), env);
    container
}

fn with_facts() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("facts"), FACTS).unwrap();
    directory
}

// ANCHOR_END: beginning

// ANCHOR: contract
/// The plugin, asked about a container of a pod.
struct Asked(NodeFacts, Pod, Container);

impl container_injector::Fixture for Asked {
    type Injector = NodeFacts;

    fn injector(&self) -> NodeFacts {
        self.0.clone()
    }

    fn pod(&self) -> Pod {
        self.1.clone()
    }

    fn container(&self) -> Container {
        self.2.clone()
    }
}

#[tokio::test]
async fn it_keeps_the_contract_of_node_plugins() {
    let directory = with_facts();
    let plugin = NodeFacts::new(directory.path().join("facts"));
    let nothing = NodeFacts::new(directory.path().join("nothing"));
    for (pod, container) in [
        (pod("zone, instance-type"), container(&["PATH=/bin"])),
        (pod("colour"), container(&[])),
        (pod("zone"), container(&["NODE_ZONE=mine"])),
        (Pod::default(), container(&[])),
    ] {
        container_injector::run(&Asked(plugin.clone(), pod.clone(), container.clone())).await;
        container_injector::run(&Asked(nothing.clone(), pod, container)).await;
    }
}
// ANCHOR_END: contract

#[test]
fn what_a_node_does_not_have_and_what_a_container_sets_itself_is_refused_by_name() {
    let facts = custom_nri::Facts::parse(FACTS);
    let refusal = |asked, env: &[&str]| facts.adjust(asked, &container(env)).unwrap_err().to_string();
    let unknown = refusal("zone,colour", &[]);
    assert!(unknown.contains("asks for colour, and this node has only: instance-type, zone"), "{unknown}");
    let taken = refusal("zone", &["NODE_ZONE=mine"]);
    assert!(taken.contains("container web sets NODE_ZONE itself"), "{taken}");
}

// ANCHOR: runtime
/// The plugin, and the connection that a runtime has to it.
struct Running {
    connection: PluginConnection,
    _tasks: JoinSet<()>,
    _runtime: FakeRuntime,
}

async fn start(directory: &Path) -> Running {
    let mut settings = Settings::new("node-facts", "30").unwrap();
    settings.socket = directory.join("nri.sock");
    let runtime = FakeRuntime::bind(&settings.socket).unwrap();
    let stub = Stub::new(settings, NodeFacts::new(directory.join("facts")), &Registry::disabled());
    let mut tasks = JoinSet::new();
    tasks.spawn(stub.run(std::future::pending()));
    let mut connection = timeout(Duration::from_secs(10), runtime.accept()).await.unwrap().unwrap();
    connection.start("2.2.9").await.unwrap();
    Running { connection, _tasks: tasks, _runtime: runtime }
}

#[tokio::test]
async fn containers_of_a_pod_that_asks_get_the_facts_as_they_are_now() {
    let directory = with_facts();
    let Running { connection, _tasks, _runtime } = start(directory.path()).await;
    let container = container(&["PATH=/bin"]);
    let created = connection.create(&pod("zone, instance-type"), &container).await.unwrap();
    let expected = ["PATH=/bin", "NODE_ZONE=eu-west-1a", "NODE_INSTANCE_TYPE=m6i.large"];
    assert_eq!(created.apply(&container).env, expected);
    let other = connection.create(&Pod::default(), &container).await.unwrap();
    assert_eq!(other.apply(&container), container);

    let error = connection.create(&pod("rack"), &container).await.unwrap_err();
    assert!(error.message.contains("asks for rack"), "{error}");
    fs::write(directory.path().join("new"), "rack=7\n").unwrap();
    fs::rename(directory.path().join("new"), directory.path().join("facts")).unwrap();
    let created = connection.create(&pod("rack"), &container).await.unwrap();
    assert_eq!(created.env, [("NODE_RACK".to_owned(), "7".to_owned())]);
}
// ANCHOR_END: runtime

#[tokio::test]
async fn a_disk_that_does_not_answer_is_a_refusal_and_keeps_nobody_else_waiting() {
    let directory = tempfile::tempdir().unwrap();
    // Whoever opens it waits for a writer.
    let file = directory.path().join("facts");
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut running = start(directory.path()).await;
    running.connection.timeout = Duration::from_millis(500);
    let (asking, not_asking, container) = (pod("zone"), Pod::default(), container(&[]));
    let (waiting, other) = tokio::join!(
        running.connection.create(&asking, &container),
        timeout(Duration::from_millis(300), running.connection.create(&not_asking, &container)),
    );
    other.unwrap().unwrap();
    let error = waiting.unwrap_err();
    assert!(error.message.contains("could not be read in time"), "{error}");
    // The thread that waits is let go, without which the test would not end.
    fs::write(&file, "").unwrap();
}
