//! The stock webhook with another policy: pods that are annotated for the Vault Agent Injector.

use std::{mem, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Component, DatabaseAccess, Release, System, binary,
    scene::{Scene, eventually, login},
    system::{AnotherProgram, LABEL},
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;

fn annotated(scene: &Scene, annotations: &[(&str, &str)]) -> Pod {
    let mut pod = scene.pod("web", &[]);
    let keys =
        annotations.iter().map(|(key, value)| (format!("vault.hashicorp.com/{key}"), (*value).to_owned()));
    let inject = ("vault.hashicorp.com/agent-inject".to_owned(), "true".to_owned());
    pod.metadata.annotations = Some(keys.chain([inject]).collect());
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_the_agent_injectors_gets_a_credential_and_one_that_wants_a_file_is_told_what_to_do()
-> Result<()> {
    let access = DatabaseAccess::default();
    let secret = format!("{}/creds/{}", access.engine, access.role);
    let mut scene = Scene::with(access, Release { replicas: 1, ..Release::default() }).await?;
    let path = tokio::task::spawn_blocking(|| binary("custom-policy", "custom-policy")).await??;
    let program = AnotherProgram { path, environment: Vec::new() };
    let release = Release { program: Some(program), ..Release::default() };
    let injector = System::replica(&scene.cluster, &scene.access, &release, Component::Injector, 1).await?;
    let address = injector.admission_address.context("the injector has an admission address")?;
    let url = format!("https://{address}/");
    scene.cluster.kubernetes().install_webhook(&url, &scene.system.ca_pem, LABEL).await?;
    let stock = mem::replace(&mut scene.system.injector, injector);

    let template = [("agent-inject-secret-main", secret.as_str()), ("agent-inject-template-main", "{{ . }}")];
    let wants_a_file = annotated(&scene, &template);
    // The API server asks the stock webhook for a moment yet, which does not know these annotations.
    eventually(Duration::from_secs(10), async || {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        match scene.pods().create(&dry_run, &wants_a_file).await {
            Err(kube::Error::Api(status)) => {
                let words = "credentials come as environment variables and not in files";
                ensure!(status.message.contains(words), "{}", status.message);
                Ok(())
            }
            outcome => bail!("{outcome:?}"),
        }
    })
    .await?;
    drop(stock);

    let annotations = [("role", "app"), ("agent-inject-secret-main", secret.as_str())];
    let pod = scene.pods().create(&PostParams::default(), &annotated(&scene, &annotations)).await?;
    let main = login(&pod, "DBUSER", "DBPASSWORD")?;
    ensure!(scene.opens_a_session(&main).await?, "the credential does not work");
    scene.delete("web").await?;
    scene.nothing_remains(Duration::from_secs(5)).await?;
    assert_eq!(scene.denied_requests()?, [""; 0], "the least privileges suffice");
    Ok(())
}
