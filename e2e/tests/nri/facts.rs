//! The plugin of `examples/custom-nri`, as a program of its own beside each containerd.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Containerd, Options, Program, Server, Version, binary,
    cri::{ContainerSpec, PodSpec},
};

use crate::on;

const PATIENCE: Duration = Duration::from_secs(30);
const ANNOTATION: &str = "node-facts.example.com/facts";

#[tokio::test]
async fn a_plugin_of_somebody_elses_gives_containers_the_facts_of_their_node() -> Result<()> {
    let node_facts = binary("custom-nri", "node-facts")?;
    let node_facts = &node_facts;
    on(&Version::ALL, async |version| {
        let mut containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let file = containerd.directory().join("facts");
        fs::write(&file, "zone=eu-west-1a\ninstance-type=m6i.large\n")?;
        let program = Program::new(node_facts, containerd.directory())
            .arg("--file")
            .arg(&file)
            .arg("--socket")
            .arg(containerd.nri_socket());
        let mut plugin = Server::start("node-facts", program, containerd.directory()).await?;
        plugin.logged("the container runtime asks the plugin", PATIENCE).await?;

        let asking = PodSpec::named("web").annotation(ANNOTATION, "zone, instance-type");
        let asking = cri.run_pod(&asking).await?;
        let web = cri.run(&asking, &ContainerSpec::named("web")).await?;
        assert_eq!(web.variable("NODE_ZONE").await?.as_deref(), Some("eu-west-1a"));
        assert_eq!(web.variable("NODE_INSTANCE_TYPE").await?.as_deref(), Some("m6i.large"));
        let other =
            cri.run(&cri.run_pod(&PodSpec::named("other")).await?, &ContainerSpec::named("app")).await?;
        assert_eq!(other.variable("NODE_ZONE").await?, None);

        let racks = cri.run_pod(&PodSpec::named("racks").annotation(ANNOTATION, "rack")).await?;
        let error = cri.create(&racks, &ContainerSpec::named("app")).await.err().context("it was made")?;
        ensure!(
            error.message().contains("asks for rack, and this node has only: instance-type, zone"),
            "{error}"
        );
        fs::write(&file, "rack=7\n")?;
        let container = cri.run(&racks, &ContainerSpec::named("app").attempt(1)).await?;
        assert_eq!(container.variable("NODE_RACK").await?.as_deref(), Some("7"));

        containerd.restart().await?;
        let again = async || {
            let times = plugin.log()?.matches("the container runtime asks the plugin").count();
            ensure!(times == 2, "it was synchronized {times} times");
            Ok(())
        };
        e2e::scene::eventually(PATIENCE, again).await?;
        let container = cri.run(&racks, &ContainerSpec::named("app").attempt(2)).await?;
        assert_eq!(container.variable("NODE_RACK").await?.as_deref(), Some("7"));
        let status = plugin.terminate(Duration::from_secs(5)).await?;
        ensure!(status.success(), "{status}\n{}", plugin.log()?);
        Ok(())
    })
    .await
}
