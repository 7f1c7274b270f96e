use serde_json::json;

use super::*;

const PREFIX: &str = "db-creds-injector.numberly.io";

/// A pod with these annotations, whose containers have these environments.
fn pod(annotations: &[(&str, &str)], containers: &[&[(&str, &str)]]) -> Pod {
    let annotations: serde_json::Map<String, serde_json::Value> =
        annotations.iter().map(|(key, value)| (format!("{PREFIX}/{key}"), json!(value))).collect();
    let containers: Vec<_> = containers
        .iter()
        .enumerate()
        .map(|(index, env)| {
            let env: Vec<_> =
                env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            json!({ "name": format!("c{index}"), "env": env })
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": { "name": "web-1", "namespace": "shop", "uid": "u-1", "annotations": annotations },
        "spec": { "containers": containers, "serviceAccountName": "app1", "nodeName": "node-1" },
    }))
    .unwrap()
}

fn demand(annotations: &[(&str, &str)], containers: &[&[(&str, &str)]]) -> Demand {
    Demand::of(&pod(annotations, containers), "databases").unwrap().unwrap()
}

fn set(placeholders: &[Placeholder]) -> BTreeSet<Placeholder> {
    placeholders.iter().copied().collect()
}

#[test]
fn user_and_password_are_found_where_the_annotations_have_them() {
    let (user, password) = (Placeholder::random(), Placeholder::random());
    let (u, p) = (user.to_string(), password.to_string());
    let id = EntryId::random();
    let annotations = [("main.role", "app"), ("main.env-key-dbuser", "A,B"), ("uuid", &id.to_string())];
    let demand = demand(&annotations, &[&[("B", &u), ("DBPASSWORD", &p), ("OTHER", &p)]]);
    assert_eq!(demand.databases.len(), 1);
    let wanted = &demand.databases[0];
    assert_eq!((wanted.id, &wanted.user, &wanted.password), (id, &set(&[user]), &set(&[password])));
    assert_eq!((wanted.request.engine.as_str(), wanted.request.role.as_str()), ("databases", "app"));
    let PodRef { namespace, name, uid, service_account, node } = demand.pod;
    assert_eq!((namespace.as_str(), service_account.as_str()), ("shop", "app1"));
    assert_eq!((name, uid, node), (Some("web-1".into()), Some("u-1".into()), Some("node-1".into())));
}

#[test]
fn user_and_password_are_told_apart_in_a_connection_string() {
    let (user, password) = (Placeholder::random(), Placeholder::random());
    for template in [
        "postgresql://db/shop",
        "{{user}}:{{password}}@tcp(db)/shop",
        "PWD={{password}};UID={{user}}",
        "jdbc:postgresql://db/shop?user={{user}}&password={{password}}",
    ] {
        let annotations = [
            ("main.role", "app"),
            ("main.mode", "uri"),
            ("main.env-key-uri", "URL"),
            ("main.template", template),
        ];
        let rendered =
            Template::parse(template).unwrap().render(&user.to_string(), &Secret::new(password.to_string()));
        let demand = demand(&annotations, &[&[("URL", rendered.expose())]]);
        let wanted = &demand.databases[0];
        assert_eq!((&wanted.user, &wanted.password), (&set(&[user]), &set(&[password])), "{template}");
    }
}

#[test]
fn a_connection_string_with_one_of_both_tells_which() {
    let only = Placeholder::random();
    for (template, user, password) in
        [("token={{password}}", set(&[]), set(&[only])), ("name={{user}}", set(&[only]), set(&[]))]
    {
        let text = template.replace("{{user}}", &only.to_string()).replace("{{password}}", &only.to_string());
        let annotations = [
            ("main.role", "app"),
            ("main.mode", "uri"),
            ("main.env-key-uri", "URL"),
            ("main.template", template),
        ];
        let demand = demand(&annotations, &[&[("URL", &text)]]);
        assert_eq!((&demand.databases[0].user, &demand.databases[0].password), (&user, &password));
    }
}

#[test]
fn ids_follow_the_databases_in_order_and_are_dropped_when_their_number_is_another() {
    let ids = [EntryId::random(), EntryId::random()];
    let placeholders: Vec<String> = (0..4).map(|_| Placeholder::random().to_string()).collect();
    let env: Vec<(&str, &str)> =
        ["AU", "AP", "BU", "BP"].into_iter().zip(placeholders.iter().map(String::as_str)).collect();
    let annotations = |uuid| {
        [
            ("a.role", "app"),
            ("a.env-key-dbuser", "AU"),
            ("a.env-key-dbpassword", "AP"),
            ("b.role", "app"),
            ("b.env-key-dbuser", "BU"),
            ("b.env-key-dbpassword", "BP"),
            ("uuid", uuid),
        ]
    };
    let both = format!("{},{}", ids[0], ids[1]);
    let found: Vec<EntryId> =
        demand(&annotations(&both), &[&env]).databases.iter().map(|wanted| wanted.id).collect();
    assert_eq!(found, ids);
    let one = ids[0].to_string();
    let found = demand(&annotations(&one), &[&env]);
    assert!(found.databases.iter().all(|wanted| !ids.contains(&wanted.id)));
}

#[test]
fn a_pod_without_placeholders_needs_nothing_even_if_it_is_annotated() {
    let pod = pod(&[("main.role", "app")], &[&[("DBUSER", "v-user"), ("DBPASSWORD", "p")]]);
    assert!(Demand::of(&pod, "databases").unwrap().is_none());
}

#[test]
fn a_container_that_the_annotations_leave_out_brings_nothing() {
    let (u, p) = (Placeholder::random().to_string(), Placeholder::random().to_string());
    let annotations = [("main.role", "app"), ("main.containers", "c0")];
    let pod = pod(&annotations, &[&[], &[("DBUSER", &u), ("DBPASSWORD", &p)]]);
    assert!(Demand::of(&pod, "databases").unwrap().is_none());
}

#[test]
fn a_placeholder_that_would_be_two_things_is_refused() {
    let (u, p) = (Placeholder::random().to_string(), Placeholder::random().to_string());
    let twice = pod(&[("main.role", "app")], &[&[("DBUSER", &u), ("DBPASSWORD", &u)]]);
    let refused = Demand::of(&twice, "databases").unwrap_err();
    assert_eq!(refused, DemandError::Ambiguous { database: "main".into() });
    let across = pod(
        &[("a.role", "app"), ("b.role", "admin"), ("b.env-key-dbuser", "BU"), ("b.env-key-dbpassword", "BP")],
        &[&[("DBUSER", &u), ("DBPASSWORD", &p), ("BU", &u)]],
    );
    assert_eq!(
        Demand::of(&across, "databases").unwrap_err(),
        DemandError::Ambiguous { database: "b".into() }
    );
}

#[test]
fn annotations_that_cannot_be_followed_are_refused() {
    let u = Placeholder::random().to_string();
    let pod = pod(&[("main.role", "../x")], &[&[("DBUSER", &u)]]);
    assert!(matches!(Demand::of(&pod, "databases"), Err(DemandError::Annotations(_))));
}
