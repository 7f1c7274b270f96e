//! What the node plugin does to containers. In threads of their own: what ends one containerd blocks its thread, and the plugins of the others have
//! to answer in time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Version,
    cri::{ContainerSpec, PodSpec},
};
use tokio::time::Instant;
use vdbi_core::{credential::CredentialSource, memory::SourceOperation, placeholder::Placeholder};

use crate::{
    node::{Node, PROD},
    on,
};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_get_its_credential_and_no_placeholder_is_left() -> Result<()> {
    on(&Version::ALL, async |version| {
        let node = Node::start(version).await?;
        let _plugin = node.plugin(PROD, "10").await?;
        let placed = node.pod("web-1", PROD).await?;
        // To containerd an init container is one that ends before the others begin.
        let spec = placed.container("migrate").command(&["sh", "-c", "echo $DBUSER"]);
        let migrate = node.cri.create(&placed.pod, &spec).await?;
        node.cri.start(&migrate).await?;
        let shown = migrate.logged("\n").await?;
        let web = node.run(&placed, "web").await?;
        ensure!(node.serves(&web).await?, "the credential does not work");
        ensure!(
            web.variable("DBUSER").await?.as_deref() == Some(shown.trim()),
            "they got different credentials"
        );
        assert_eq!(node.source.calls(SourceOperation::Issue), 1);
        ensure!(node.ledger.entries().contains_key(&placed.id), "the ledger does not know it");
        // What the tripwire hid is there.
        let uptime = node.cri.exec(&web, &["sh", "-c", "read up rest </proc/uptime; echo $up"]).await?;
        ensure!(uptime.code == 0 && uptime.stdout.contains('.'), "{}", uptime.stderr);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_image_sets_is_looked_at_too() -> Result<()> {
    on(&Version::ALL, async |version| {
        let foreign = Placeholder::random().to_string();
        let node = Node::with(version, vec![("OF_IMAGE".to_owned(), foreign)]).await?;
        let _plugin = node.plugin(PROD, "10").await?;
        let placed = node.pod("web-1", PROD).await?;
        let error = node.run(&placed, "web").await.err().context("a foreign placeholder was let in")?;
        ensure!(
            error.message().contains("OF_IMAGE holds a placeholder that stands for no credential"),
            "{error}"
        );
        ensure!(!error.message().contains("__VDBI_PH_"), "{error}");
        // With the pod's own behind it the variable is there twice, and NRI replaces the first.
        let twice = placed.container("web").env("OF_IMAGE", &placed.password.to_string());
        let error = node.cri.run(&placed.pod, &twice).await.err().context("a placeholder was let in")?;
        ensure!(error.message().contains("OF_IMAGE is set twice"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_none_of_ours_is_created_as_it_is() -> Result<()> {
    on(&Version::ALL, async |version| {
        let node = Node::start(version).await?;
        let _plugin = node.plugin(PROD, "10").await?;
        let pod = node.cri.run_pod(&PodSpec::named("other")).await?;
        let text = Placeholder::random().to_string();
        let container = node.cri.run(&pod, &ContainerSpec::named("app").env("A", &text)).await?;
        assert_eq!(container.variable("A").await?, Some(text), "without our label it is somebody else's");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_in_the_command_line_is_refused() -> Result<()> {
    on(&Version::ALL, async |version| {
        let node = Node::start(version).await?;
        let _plugin = node.plugin(PROD, "10").await?;
        let placed = node.pod("web-1", PROD).await?;
        let spec = placed.container("web").args(&[&format!("--password={}", placed.password)]);
        let error = node.cri.create(&placed.pod, &spec).await.err().context("it was made")?;
        ensure!(error.message().contains("command line has a placeholder"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_plugin_nothing_runs_and_with_it_the_same_container_does() -> Result<()> {
    on(&Version::ALL, async |version| {
        let node = Node::start(version).await?;
        let placed = node.pod("web-1", PROD).await?;
        let error = node.run(&placed, "web").await.err().context("it ran without the plugin")?;
        ensure!(error.message().contains("not a directory"), "{error}");
        let plugin = node.plugin(PROD, "10").await?;
        let web = node.cri.run(&placed.pod, &placed.container("web").attempt(1)).await?;
        ensure!(node.serves(&web).await?, "the credential does not work");
        // Gone again, and back: what it had is in its cache.
        drop(plugin);
        let again = placed.container("web").attempt(2);
        let error = node.cri.run(&placed.pod, &again).await.err().context("it ran without the plugin")?;
        // Where containerd has not noticed yet, from 2.2 on the validation that it asks for fails first.
        let expected = ["not a directory", "validator plugin"];
        ensure!(expected.iter().any(|text| error.message().contains(text)), "{error}");
        let _plugin = node.plugin(PROD, "10").await?;
        let web = node.cri.run(&placed.pod, &placed.container("web").attempt(3)).await?;
        ensure!(node.serves(&web).await?, "the credential does not work");
        assert_eq!(node.source.calls(SourceOperation::Issue), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_backend_fails_the_creation_in_time_and_the_next_attempt_finds_what_it_sent() -> Result<()> {
    on(&Version::ALL, async |version| {
        let node = Node::start(version).await?;
        let _plugin = node.plugin(PROD, "10").await?;
        let placed = node.pod("web-1", PROD).await?;
        let mut hold = node.source.hold(SourceOperation::Issue);
        let error = node.run(&placed, "web").await.err().context("it was made without a credential")?;
        ensure!(error.message().contains("no credential within 1.5s (nri.fetchTimeout)"), "{error}");
        hold.arrived(1).await;
        hold.release();
        let web = node.cri.run(&placed.pod, &placed.container("web").attempt(1)).await?;
        ensure!(node.serves(&web).await?, "the credential does not work");
        assert_eq!(node.source.calls(SourceOperation::Issue), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_dies_while_it_is_asked_lets_nothing_run() -> Result<()> {
    on(&Version::ALL, async |version| {
        let node = Node::start(version).await?;
        let plugin = node.plugin(PROD, "10").await?;
        let placed = node.pod("web-1", PROD).await?;
        let mut hold = node.source.hold(SourceOperation::Issue);
        let dying = async {
            hold.arrived(1).await;
            drop(plugin);
        };
        let (outcome, ()) = tokio::join!(node.run(&placed, "web"), dying);
        let error = outcome.err().context("it ran with a placeholder")?;
        eprintln!("{version:?}: {}", error.message());
        hold.release();
        let _plugin = node.plugin(PROD, "10").await?;
        let web = node.cri.run(&placed.pod, &placed.container("web").attempt(1)).await?;
        ensure!(node.serves(&web).await?, "the credential does not work");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_starts_again_keeps_a_live_credential_and_gets_another_for_a_dead_one() -> Result<()>
{
    on(&Version::ALL, async |version| {
        let mut node = Node::start(version).await?;
        let _plugin = node.plugin(PROD, "10").await?;
        let placed = node.pod("web-1", PROD).await?;
        let first = node.run(&placed, "web").await?;
        let user = first.variable("DBUSER").await?;
        node.cri.stop(&first, Duration::ZERO).await?;
        let second = node.cri.run(&placed.pod, &placed.container("web").attempt(1)).await?;
        assert_eq!(second.variable("DBUSER").await?, user);

        node.containerd.restart().await?;
        node.source.revoke(&node.ledger.entries()[&placed.id].lease).await?;
        node.cri.stop(&second, Duration::ZERO).await?;
        // The plugin is on its way back to the new containerd.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut attempt = 2;
        let third = loop {
            match node.cri.run(&placed.pod, &placed.container("web").attempt(attempt)).await {
                Ok(third) => break third,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => attempt += 1,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        ensure!(third.variable("DBUSER").await? != user, "it got the dead credential");
        ensure!(node.serves(&third).await?, "the credential does not work");
        ensure!(node.ledger.entries().contains_key(&placed.id.successor()), "there is no other credential");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_two_releases_serve_each_its_own_pods_on_one_containerd() -> Result<()> {
    on(&Version::ALL, async |version| {
        const DEV: &str = "vault-db-injector-dev";
        let node = Node::start(version).await?;
        let _prod = node.plugin(PROD, "10").await?;
        let dev = node.plugin(DEV, "11").await?;
        let (of_prod, of_dev) = (node.pod("web-1", PROD).await?, node.pod("web-2", DEV).await?);
        for placed in [&of_prod, &of_dev] {
            let web = node.run(placed, "web").await?;
            ensure!(node.serves(&web).await?, "the credential does not work");
        }
        let owner = |id| node.ledger.entries()[id].owner.clone().map(|owner| owner.release);
        assert_eq!((owner(&of_prod.id).as_deref(), owner(&of_dev.id).as_deref()), (Some(PROD), Some(DEV)));
        // Without its own plugin a pod is nobody's.
        drop(dev);
        let again = of_dev.container("web").attempt(1);
        node.cri.run(&of_dev.pod, &again).await.err().context("the other release's plugin served it")?;
        let web = node.cri.run(&of_prod.pod, &of_prod.container("web").attempt(1)).await?;
        ensure!(node.serves(&web).await?, "the credential does not work");
        Ok(())
    })
    .await
}
