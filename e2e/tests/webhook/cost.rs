//! What an admission costs Vault.

use anyhow::Result;
use e2e::{DatabaseAccess, Release, scene::Scene, system::Authentication};
use serde_json::{Map, json};

/// The requests of one admission beyond those of the first, which fills the cache; without those of the other components.
async fn requests_of_a_second_pod(scene: &Scene) -> Result<Vec<String>> {
    let operations = ["login", "read_auth_role", "create_token", "lookup_self", "issue", "write_entry"];
    let count = async || -> Result<Vec<f64>> {
        let mut counts = Vec::new();
        for operation in operations {
            let label = format!("operation=\"{operation}\"");
            counts.push(scene.system.injector.metric("vdbi_vault_requests_total", &[&label]).await?);
        }
        counts.push(scene.system.injector.metric("vdbi_vault_requests_total", &[]).await?);
        Ok(counts)
    };
    scene.create("first", &[("main.role", "app")]).await?;
    let before = count().await?;
    scene.create("second", &[("main.role", "app")]).await?;
    let after = count().await?;
    let mut requests = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        for _ in 0..(after[index] - before[index]) as usize {
            requests.push((*operation).to_owned());
        }
    }
    assert_eq!(requests.len() as f64, after[operations.len()] - before[operations.len()], "others as well");
    Ok(requests)
}

/// How often the API server was asked to look at a token.
fn token_reviews(scene: &Scene) -> Result<usize> {
    let events = scene.cluster.kubernetes().audit_events()?;
    let is_review = |resource: &str| resource == "tokenreviews";
    Ok(events.iter().filter(|event| event.object.as_ref().is_some_and(|it| is_review(&it.resource))).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_admission_costs_three_requests_and_no_token_review() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Legacy).await?;
    let before = token_reviews(&scene)?;
    assert_eq!(requests_of_a_second_pod(&scene).await?, ["create_token", "issue", "write_entry"]);
    assert_eq!(token_reviews(&scene)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projected_admission_costs_three_requests_and_one_token_review() -> Result<()> {
    let scene = Scene::start(DatabaseAccess::default(), Authentication::Projected).await?;
    let before = token_reviews(&scene)?;
    assert_eq!(requests_of_a_second_pod(&scene).await?, ["login", "issue", "write_entry"]);
    assert_eq!(token_reviews(&scene)? - before, 2, "one for each of the two pods");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_with_placeholders_costs_nothing_and_issues_nothing() -> Result<()> {
    let configuration = Map::from_iter([("nri".to_owned(), json!({ "enabled": true }))]);
    let scene =
        Scene::with(DatabaseAccess::default(), Release { configuration, ..Release::default() }).await?;
    assert_eq!(requests_of_a_second_pod(&scene).await?, [""; 0]);
    assert_eq!(scene.remains().await?, [""; 0]);
    let pod = scene.pods().get("second").await?;
    let login = e2e::scene::login(&pod, "DBUSER", "DBPASSWORD")?;
    assert!(login.user.starts_with("__VDBI_PH_") && login.password.starts_with("__VDBI_PH_"));
    scene.is_denied(&[("main.role", "nosuch")], &["nosuch"]).await?;
    Ok(())
}
