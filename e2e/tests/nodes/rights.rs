use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::{
    Component, DatabaseAccess,
    network::isolated,
    scene::{PREFIX, eventually},
    system::LABEL,
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::Secret,
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::{
    helm::{Chart, Helm},
    world::{PATIENCE, SERVE, World},
};

/// So short that a credential is renewed, found to end and rotated within the test.
const TTL: &str = "20s";

/// What is only needed where something is wrong or late, which the tests of renewer and node plugin bring about: a container that runs
/// with a placeholder, one that is created before its credential was fetched, an event that is repeated.
const UNUSED: [&str; 4] = [
    "nri create events.k8s.io/events",
    "nri get /pods",
    "nri patch events.k8s.io/events",
    "renewer patch events.k8s.io/events",
];

#[test]
fn every_right_that_the_chart_grants_is_used_and_none_is_missing() -> Result<()> {
    isolated(async || {
        let access =
            DatabaseAccess { default_ttl: TTL.into(), max_ttl: TTL.into(), ..DatabaseAccess::default() };
        let world = World::for_charts_with(access).await?;
        let projected = json!({ "vaultDbInjector": { "configuration": {
            "useProjectedSA": true,
            "tokenRequestAudiences": [world.scene.access.audience],
        } } });
        let chart = world.chart("prod", LABEL, projected).await?;
        world.install(&chart, json!({})).await?;

        let mut template = world.template("web", SERVE);
        template["metadata"]["annotations"][format!("{PREFIX}rotation")] = json!("evict");
        world.deploy("web", 1, template).await?;
        let first = world.running("web", 1).await?;
        // What the programs keep in Kubernetes, they make again.
        let client = world.scene.cluster.kubernetes().admin();
        let namespace = &chart.access.system_namespace;
        let release = &chart.access.release;
        for lease in ["injector", "renewer", "revoker"] {
            let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
            leases.delete(&format!("{release}-{lease}"), &DeleteParams::default()).await?;
        }
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        secrets.delete(&format!("{release}-webhook-tls"), &DeleteParams::default()).await?;
        world.replaced(&first).await?;

        // The same release from now on with the node plugin.
        world.install(&chart, json!({ "nri": { "enabled": true } })).await?;
        world.apply("v1", "Pod", "lab", world.template("lab", SERVE)).await?;
        world.running("lab", 1).await?;
        eventually(PATIENCE, async || {
            let (granted, used) = (world.granted(&chart).await?, world.used(&chart)?);
            let unused: Vec<&String> = granted.difference(&used).collect();
            ensure!(unused == UNUSED, "the chart grants what nobody uses: {unused:?}");
            Ok(())
        })
        .await?;
        assert_eq!(
            world.scene.cluster.denied_requests(&chart.access)?,
            [""; 0],
            "the roles of the chart suffice"
        );
        Ok(())
    })
}

impl World<Helm> {
    /// The rights of a release's components, as `<component> <verb> <group>/<resource>`.
    async fn granted(&self, chart: &Chart) -> Result<BTreeSet<String>> {
        let client = self.scene.cluster.kubernetes().admin();
        let roles: Api<Role> = Api::namespaced(client.clone(), &chart.access.system_namespace);
        let cluster_roles: Api<ClusterRole> = Api::all(client);
        let mut granted = BTreeSet::new();
        for component in Component::ALL {
            let account = chart.access.component_service_account(component);
            let rules = roles.get_opt(&account).await?.and_then(|role| role.rules);
            let cluster_rules = cluster_roles.get_opt(&account).await?.and_then(|role| role.rules);
            for rule in rules.into_iter().flatten().chain(cluster_rules.into_iter().flatten()) {
                granted.extend(rights(&rule).map(|right| format!("{} {right}", component.name())));
            }
        }
        Ok(granted)
    }

    /// What a release's components have asked the API server for, likewise.
    fn used(&self, chart: &Chart) -> Result<BTreeSet<String>> {
        let accounts = Component::ALL.map(|component| {
            let account = chart.access.component_service_account(component);
            (component, format!("system:serviceaccount:{}:{account}", chart.access.system_namespace))
        });
        let events = self.scene.cluster.kubernetes().audit_events()?;
        let used = events.iter().filter_map(|event| {
            let (component, _) = accounts.iter().find(|(_, user)| *user == event.user)?;
            let object = event.object.as_ref()?;
            let mut resource = format!("{}/{}", object.api_group, object.resource);
            if !object.subresource.is_empty() {
                resource += &format!("/{}", object.subresource);
            }
            Some(format!("{} {} {resource}", component.name(), event.verb))
        });
        Ok(used.collect())
    }
}

fn rights(rule: &PolicyRule) -> impl Iterator<Item = String> + '_ {
    let groups = rule.api_groups.iter().flatten();
    groups.flat_map(move |group| {
        let resources = rule.resources.iter().flatten();
        resources
            .flat_map(move |resource| rule.verbs.iter().map(move |verb| format!("{verb} {group}/{resource}")))
    })
}
