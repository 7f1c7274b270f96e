use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Containerd, Nri, Options, Version,
    cri::{ContainerSpec, PodSpec},
    scene::eventually,
};
use futures::future::try_join_all;

use crate::{
    on,
    plugin::{LARGE, Plugin, SECRET},
};

/// What stands in a manifest for what the plugin sets.
const PLACEHOLDER: &str = "a placeholder";

#[tokio::test]
async fn a_variable_is_set_before_the_container_is_created() -> Result<()> {
    on(&Version::ALL, async |version| {
        let containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let spec =
            ContainerSpec::named("app").env("BEFORE", "1").env("SECRET", PLACEHOLDER).env("AFTER", "2");
        let early = cri.run(&pod, &spec.clone().attempt(1)).await?;
        assert_eq!(early.variable("SECRET").await?.as_deref(), Some(PLACEHOLDER), "nobody was asked");

        let plugin = Plugin::connect(&containerd, "vdbi", "10").await?;
        assert_eq!(plugin.synchronization(1).await?.len(), 1);
        let container = cri.run(&pod, &spec).await?;
        assert_eq!(container.variable("SECRET").await?.as_deref(), Some(SECRET));
        assert_eq!(container.variable("BEFORE").await?.as_deref(), Some("1"));
        assert_eq!(container.variable("AFTER").await?.as_deref(), Some("2"));
        assert_eq!(cri.exec(&container, &["sh", "-c", "echo $SECRET"]).await?.stdout, format!("{SECRET}\n"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_creation_that_a_plugin_does_not_answer_fails_and_it_stays_connected() -> Result<()> {
    on(&Version::ALL, async |version| {
        let containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let plugin = Plugin::connect(&containerd, "vdbi", "10").await?;
        for name in ["refuse", "hang", "panic"] {
            let outcome = cri.create(&pod, &ContainerSpec::named(name)).await;
            let error = outcome.err().with_context(|| format!("{name} was made"))?;
            ensure!(name != "refuse" || error.message().contains("as the test asks"), "{error}");
        }
        let container = cri.run(&pod, &ContainerSpec::named("app")).await?;
        assert_eq!(container.variable("SECRET").await?.as_deref(), Some(SECRET));
        assert_eq!(plugin.synchronizations(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_answer_of_megabytes_arrives_and_another_plugin_is_told_of_it() -> Result<()> {
    on(&Version::ALL, async |version| {
        let containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let plugin = Plugin::connect(&containerd, "vdbi", "10").await?;
        cri.create(&pod, &ContainerSpec::named("large")).await?;
        assert_eq!(plugin.synchronizations(), 1, "it was not dropped");

        let told = Plugin::connect(&containerd, "other", "20").await?.synchronization(1).await?;
        let variables = told.iter().flat_map(|container| &container.env);
        let lengths =
            variables.filter_map(|text| Some(text.strip_prefix("LARGE_")?.split_once('=')?.1.len()));
        assert_eq!(lengths.collect::<Vec<_>>(), vec![LARGE.1; LARGE.0]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_plugins_that_set_the_same_variable_make_the_creation_fail() -> Result<()> {
    on(&Version::ALL, async |version| {
        let containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let _first = Plugin::connect(&containerd, "first", "10").await?;
        let second = Plugin::connect(&containerd, "second", "20").await?;
        let error = cri.create(&pod, &ContainerSpec::named("app")).await.err().context("it was made")?;
        assert!(error.message().to_lowercase().contains("both tried to set env secret"), "{error}");
        second.end().await;
        // containerd notices the end of a connection when it comes to it.
        eventually(Duration::from_secs(5), async || {
            Ok(cri.create(&pod, &ContainerSpec::named("app")).await.map(drop)?)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_plugin_is_synchronized_again_when_containerd_comes_back() -> Result<()> {
    on(&Version::ALL, async |version| {
        let mut containerd = Containerd::start(version, Options::default()).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let plugin = Plugin::connect(&containerd, "vdbi", "10").await?;
        cri.run(&pod, &ContainerSpec::named("first")).await?;
        containerd.restart().await?;
        let told = plugin.synchronization(2).await?;
        let names: Vec<&str> = told.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["first"]);
        ensure!(told[0].env.contains(&format!("SECRET={SECRET}")), "containerd tells what was set");

        containerd.kill().await?;
        containerd.start_again().await?;
        assert_eq!(plugin.synchronization(3).await?.len(), 1);
        let container = cri.run(&pod, &ContainerSpec::named("second")).await?;
        assert_eq!(container.variable("SECRET").await?.as_deref(), Some(SECRET));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_required_plugin_is_there_only_while_it_is_connected() -> Result<()> {
    on(&[Version::V2_2, Version::V2_4], async |version| {
        let nri = Nri { default_validator: Some(vec!["vdbi".to_owned()]), ..Nri::default() };
        let containerd = Containerd::start(version, Options { nri, ..Options::default() }).await?;
        let cri = containerd.cri().await?;
        let pod = cri.run_pod(&PodSpec::named("web")).await?;
        let plugin = Plugin::connect(&containerd, "vdbi", "10").await?;
        let container = cri.run(&pod, &ContainerSpec::named("first")).await?;
        assert_eq!(container.variable("SECRET").await?.as_deref(), Some(SECRET));
        plugin.end().await;
        let error = cri.create(&pod, &ContainerSpec::named("second")).await.err().context("it was made")?;
        assert!(error.message().contains("plugin"), "{error}");
        Ok(())
    })
    .await
}

/// As many as a full node has, and together more than fits into one message.
#[tokio::test]
async fn three_hundred_containers_are_synchronized() -> Result<()> {
    const PODS: usize = 10;
    const EACH: usize = 30;
    // The one that sends them all at once, and one that sends them in parts.
    on(&[Version::V1_7_24, Version::V2_4], async |version| {
        let containerd = Containerd::start(version, Options::default()).await?;
        let cri = &containerd.cri().await?;
        let filling = &"x".repeat(15_000);
        let fill = async |number: usize| -> Result<()> {
            let pod = cri.run_pod(&PodSpec::named(&format!("web-{number}"))).await?;
            for number in 0..EACH {
                let spec = ContainerSpec::named(&format!("app-{number}")).env("FILLING", filling);
                cri.create(&pod, &spec).await?;
            }
            Ok(())
        };
        let fill = &fill;
        try_join_all((0..PODS).map(fill)).await?;
        let told = Plugin::connect(&containerd, "vdbi", "10").await?.synchronization(1).await?;
        assert_eq!(told.len(), PODS * EACH);
        Ok(())
    })
    .await
}
