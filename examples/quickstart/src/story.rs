//! The story: three pods get credentials, keep them through the death of a leader, and lose them when they are done.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::system::LABEL;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    narrator::Narrator,
    release::{LEASE, Release, Replica, TTL},
    stage::{NAMESPACE, ROLE, SERVICE_ACCOUNT, Stage},
};

const PREFIX: &str = "db-creds-injector.numberly.io/";

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod's name and its annotations.
const PODS: [(&str, &[(&str, &str)]); 3] = [
    ("web", &[("main.role", ROLE)]),
    (
        "api",
        &[
            ("main.role", ROLE),
            ("main.mode", "uri"),
            ("main.env-key-uri", "DATABASE_URL"),
            ("main.template", "postgresql://db:5432/shop?sslmode=require"),
        ],
    ),
    (
        "report",
        &[
            ("role", ROLE),
            ("orders.env-key-dbuser", "ORDERS_USER"),
            ("orders.env-key-dbpassword", "ORDERS_PASSWORD"),
            ("stock.env-key-dbuser", "STOCK_USER"),
            ("stock.env-key-dbpassword", "STOCK_PASSWORD"),
        ],
    ),
];

pub async fn tell<S: Stage>(stage: S, narrator: &Narrator) -> Result<()> {
    narrator.chapter("A release of vdbi");
    let release = Release::start(&stage).await?;
    let pods: Api<Pod> = Api::namespaced(stage.client(), NAMESPACE);
    create_service_account(&stage).await?;
    let leader = leader(&release.renewers).await?;
    self::leader(&release.revokers).await?;
    narrator.report(
        "started",
        &format!("over {}: webhook on {}, two renewers, two revokers", stage.description(), release.webhook),
        json!({ "webhook": release.webhook.to_string(), "leader": leader.name }),
    );
    narrator.detail(&format!("{} leads; the other one stands by", leader.name));
    let before = metrics(&release);

    narrator.chapter("Three pods ask for credentials");
    let mut login = None;
    for (name, annotations) in PODS {
        let asked = Instant::now();
        let pod = pods.create(&PostParams::default(), &pod(name, annotations)?).await?;
        let took = asked.elapsed();
        narrator.report(
            "admitted",
            &format!("pod {name} was admitted with this patch ({:.0} ms)", took.as_secs_f64() * 1e3),
            json!({ "pod": name, "milliseconds": took.as_secs_f64() * 1e3 }),
        );
        for (variable, value) in environment(&pod) {
            narrator.detail(&format!("{variable}={}", mask(&variable, &value)));
        }
        narrator.detail(&format!("uuid: {}", pod.annotations()["db-creds-injector.numberly.io/uuid"]));
        let variables: BTreeMap<_, _> = environment(&pod).collect();
        if let (Some(user), Some(password)) = (variables.get("DBUSER"), variables.get("DBPASSWORD")) {
            login = Some((user.clone(), password.clone()));
        }
    }
    let denied = pods.create(&PostParams::default(), &pod("greedy", &[("main.role", "admin")])?).await;
    let denied = denied.err().context("a pod with a role that does not exist was admitted")?;
    narrator.report("denied", "a fourth pod asks for a role that it may not have, and is denied", json!({}));
    narrator.detail(&message(&denied));
    let (user, password) = login.context("the first pod has a login")?;
    ensure!(stage.opens_a_session(&user, &password).await?, "the database refuses the new credential");
    narrator.say("login", "the database accepts the login of pod web");

    narrator.chapter("The credentials are kept alive");
    narrator.detail(&format!("each of the four would be dead {TTL:?} after its issue"));
    let renewals = async || renewed(&leader.page) >= 4.0;
    wait("the first renewals", renewals).await?;
    narrator.report(
        "renewed",
        &format!("{} has renewed all four", leader.name),
        json!({ "leader": leader.name }),
    );

    narrator.chapter("The leader dies");
    leader.kill();
    let killed = Instant::now();
    narrator.say("killed", &format!("{} was killed without a chance to hand over", leader.name));
    let heir = release.renewers.iter().find(|replica| replica.name != leader.name);
    let heir = heir.context("there are two renewers")?;
    wait("a new leader", async || heir.leads()).await?;
    let failover = killed.elapsed();
    narrator.report(
        "took over",
        &format!("{} leads {:.2} s later; the lease ran for {LEASE:?}", heir.name, failover.as_secs_f64()),
        json!({ "leader": heir.name, "failover_s": failover.as_secs_f64() }),
    );
    wait("renewals by the new leader", async || renewed(&heir.page) >= 4.0).await?;
    ensure!(stage.opens_a_session(&user, &password).await?, "the credential was lost with the leader");
    narrator.say("survived", "it has renewed all four, and the login of pod web still works");

    narrator.chapter("A pod is done");
    pods.delete("web", &DeleteParams::default()).await?;
    let deleted = Instant::now();
    wait("the revocation", async || stage.opens_a_session(&user, &password).await.is_ok_and(|opens| !opens))
        .await?;
    let revocation = deleted.elapsed();
    narrator.report(
        "revoked",
        &format!("pod web was deleted; its login is refused {:.0} ms later", revocation.as_secs_f64() * 1e3),
        json!({ "milliseconds": revocation.as_secs_f64() * 1e3 }),
    );

    narrator.chapter("What the metrics say now");
    for line in changed(&before, &metrics(&release)) {
        narrator.detail(&line);
    }

    narrator.chapter("In short");
    release.stop().await?;
    narrator.summary(&[
        "3 pods got 4 credentials; a fourth pod was denied and left nothing".to_owned(),
        "every credential outlived its time to live, through a failover".to_owned(),
        format!("failover after a crash: {:.2} s (lease {LEASE:?})", failover.as_secs_f64()),
        format!("revocation after the deletion of a pod: {:.0} ms", revocation.as_secs_f64() * 1e3),
    ]);
    Ok(())
}

async fn create_service_account<S: Stage>(stage: &S) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client(), NAMESPACE);
    let account = json!({ "metadata": { "name": SERVICE_ACCOUNT } });
    match accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        created => Ok(created.map(drop)?),
    }
}

fn pod(name: &str, annotations: &[(&str, &str)]) -> Result<Pod> {
    let annotations: BTreeMap<String, &str> =
        annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { LABEL: "true" }, "annotations": annotations },
        "spec": { "serviceAccountName": SERVICE_ACCOUNT, "containers": [{ "name": name, "image": name }] },
    }))?)
}

fn environment(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let variables = containers.flat_map(|container| container.env.iter().flatten());
    variables.map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default()))
}

fn mask(variable: &str, value: &str) -> String {
    const MASK: &str = "********";
    if variable.contains("PASSWORD") {
        return MASK.to_owned();
    }
    match value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (userinfo, rest))) => {
            let user = userinfo.split_once(':').map_or(userinfo, |(user, _)| user);
            format!("{scheme}://{user}:{MASK}@{rest}")
        }
        None => value.to_owned(),
    }
}

fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

async fn leader(replicas: &[Replica]) -> Result<&Replica> {
    wait("a leader", async || replicas.iter().any(Replica::leads)).await?;
    replicas.iter().find(|replica| replica.leads()).context("the leader was lost at once")
}

async fn wait(what: &str, condition: impl AsyncFn() -> bool) -> Result<()> {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("waited {PATIENCE:?} for {what}"))
}

fn renewed(page: &vdbi_core::admin::PrometheusPage) -> f64 {
    let page = page.render();
    let series = page.lines().filter(|line| line.starts_with("vdbi_renew_lease_count_success"));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Each series of ours with its value, by the part of the release that exports it.
fn metrics(release: &Release) -> BTreeMap<(String, String), String> {
    let mut metrics = BTreeMap::new();
    for (name, page) in release.pages() {
        for line in page.render().lines().filter(|line| line.starts_with("vdbi_")) {
            if let Some((series, value)) = line.rsplit_once(' ') {
                metrics.insert((name.to_owned(), series.to_owned()), value.to_owned());
            }
        }
    }
    metrics
}

/// Series that moved, without those that only say when.
fn changed(
    before: &BTreeMap<(String, String), String>,
    after: &BTreeMap<(String, String), String>,
) -> Vec<String> {
    let moved = after.iter().filter(|(key, value)| before.get(*key).map_or("0", String::as_str) != *value);
    let interesting =
        moved.filter(|((_, series), _)| !series.contains("_bucket") && !series.contains("last_"));
    interesting.map(|((name, series), value)| format!("{name:<10} {series} {value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_in_variables_and_in_urls() {
        assert_eq!(mask("DBPASSWORD", "secret"), "********");
        assert_eq!(mask("DBUSER", "v-app"), "v-app");
        assert_eq!(mask("URL", "postgresql://v-app:secret@db/x"), "postgresql://v-app:********@db/x");
    }
}
