use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

fn one(secret: &str) -> (Placeholder, HashMap<Placeholder, Secret>) {
    let placeholder = Placeholder::random();
    (placeholder, HashMap::from([(placeholder, Secret::new(secret))]))
}

/// The changes, readable.
fn changes(
    environment: &[String],
    secrets: &HashMap<Placeholder, Secret>,
) -> Result<Vec<(String, String)>, Refusal> {
    let changes = substitute(environment, secrets)?;
    Ok(changes.into_iter().map(|(key, value)| (key, value.expose().to_owned())).collect())
}

fn value_of(value: &str, secrets: &HashMap<Placeholder, Secret>) -> String {
    let changes = changes(&[format!("K={value}")], secrets).unwrap();
    assert_eq!(changes.len(), 1);
    changes[0].1.clone()
}

#[test]
fn only_what_holds_a_placeholder_changes() {
    let (user, mut secrets) = one("v-user");
    let password = Placeholder::random();
    secrets.insert(password, Secret::new("p=w"));
    let environment = [
        "PATH=/bin".to_owned(),
        format!("DBUSER={user}"),
        "EMPTY=".to_owned(),
        "NOVALUE".to_owned(),
        format!("DSN=user={user} password={password}"),
    ];
    assert_eq!(
        changes(&environment, &secrets),
        Ok(vec![
            ("DBUSER".to_owned(), "v-user".to_owned()),
            ("DSN".to_owned(), "user=v-user password=p=w".to_owned()),
        ])
    );
}

#[test]
fn nothing_changes_without_a_placeholder() {
    let environment = ["A=1", "A=2", "-B=3", "=4"];
    assert!(substitute(&environment, &HashMap::new()).unwrap().is_empty());
}

#[test]
fn credentials_are_encoded_in_the_user_information_of_a_url() {
    let (ph, secrets) = one("p@s/s%");
    assert_eq!(
        value_of(&format!("postgres://{ph}:{ph}@db/app"), &secrets),
        "postgres://p%40s%2Fs%25:p%40s%2Fs%25@db/app"
    );
    assert_eq!(
        value_of(&format!("jdbc:postgresql://u:{ph}@db"), &secrets),
        "jdbc:postgresql://u:p%40s%2Fs%25@db"
    );
    assert_eq!(
        value_of(&format!("amqp://u:{ph}@a,amqp+tls://u:{ph}@b"), &secrets),
        "amqp://u:p%40s%2Fs%25@a,amqp+tls://u:p%40s%2Fs%25@b"
    );
}

#[test]
fn credentials_are_encoded_wherever_they_are_in_a_value_that_is_a_url() {
    let (ph, secrets) = one("p@s/s%");
    for template in
        ["postgres://db/app?password=PH", "postgres://u:p@PH", "jdbc:postgresql://db/x?user=u&password=PH"]
    {
        let value = template.replace("PH", &ph.to_string());
        assert_eq!(value_of(&value, &secrets), template.replace("PH", "p%40s%2Fs%25"), "{template}");
    }
}

#[test]
fn credentials_are_put_in_as_they_are_everywhere_else() {
    let (ph, secrets) = one("p@s/s%");
    for template in [
        "PH",
        "user:PH@tcp(db:3306)/app",
        "see postgres://db/app?password=PH",
        "see https://docs/ user:PH@host",
        "://PH@db",
    ] {
        let value = template.replace("PH", &ph.to_string());
        assert_eq!(value_of(&value, &secrets), template.replace("PH", "p@s/s%"), "{template}");
    }
}

#[test]
fn a_name_set_twice_is_refused_when_its_last_value_holds_a_placeholder() {
    let (ph, secrets) = one("s");
    let environment = ["A=1".to_owned(), format!("A={ph}")];
    assert_eq!(changes(&environment, &secrets), Err(Refusal::Duplicate { key: "A".to_owned() }));
    let environment = [format!("A={ph}"), format!("A={ph}")];
    assert_eq!(changes(&environment, &secrets), Err(Refusal::Duplicate { key: "A".to_owned() }));
}

#[test]
fn a_placeholder_that_a_later_value_hides_is_refused() {
    let (ph, secrets) = one("s");
    let environment = [format!("A={ph}"), "A=1".to_owned()];
    assert_eq!(changes(&environment, &secrets), Err(Refusal::Residual { key: "A".to_owned() }));
}

#[test]
fn a_name_that_nri_cannot_set_is_refused() {
    let (ph, secrets) = one("s");
    for key in ["-A", "-", ""] {
        let refusal = changes(&[format!("{key}={ph}")], &secrets);
        assert_eq!(refusal, Err(Refusal::Unsettable { key: key.to_owned() }));
    }
}

#[test]
fn an_unknown_placeholder_is_refused() {
    let (ph, secrets) = one("s");
    let environment = [format!("A={ph}{}", Placeholder::random())];
    assert_eq!(changes(&environment, &secrets), Err(Refusal::Unknown { key: "A".to_owned() }));
}

#[test]
fn what_is_left_of_a_placeholder_is_refused() {
    let (ph, secrets) = one("s");
    let damaged = &ph.to_string()[..76];
    for environment in [
        format!("A={damaged}"),
        format!("A={ph}{damaged}"),
        format!("A=__VDBI_PH_{}___", "0A".repeat(32)),
        "A=__VDBI_PH_".to_owned(),
    ] {
        let refusal = changes(std::slice::from_ref(&environment), &secrets);
        assert_eq!(refusal, Err(Refusal::Residual { key: "A".to_owned() }), "{environment}");
    }
    let in_the_name = changes(&[format!("{ph}=1")], &secrets);
    assert_eq!(in_the_name, Err(Refusal::Residual { key: ph.to_string() }));
    let without_a_value = changes(&[ph.to_string()], &secrets);
    assert_eq!(without_a_value, Err(Refusal::Residual { key: ph.to_string() }));
}

#[test]
fn a_placeholder_that_comes_into_being_is_refused() {
    let (ph, secrets) = one("VDBI_PH_");
    let refusal = changes(&[format!("A=__{ph}")], &secrets);
    assert_eq!(refusal, Err(Refusal::Residual { key: "A".to_owned() }));
}

#[test]
fn a_refusal_shows_no_value() {
    let (ph, secrets) = one("hunter2");
    let environment = [format!("A=topsecret{ph}{PREFIX}")];
    let refusal = substitute(&environment, &secrets).unwrap_err();
    let shown = format!("{refusal} {refusal:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("topsecret"), "{shown}");
}

/// Pieces from which anything that looks like a placeholder can be built, whole ones among them.
fn line(known: Placeholder, unknown: Placeholder) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just(known.to_string()),
        1 => Just(unknown.to_string()),
        1 => Just(PREFIX.to_owned()),
        2 => "[_a-z]{0,3}",
        1 => Just("://".to_owned()),
        1 => Just("@".to_owned()),
        1 => Just("VDBI_PH_".to_owned()),
    ];
    ("-?[A-C]", prop::collection::vec(piece, 0..4))
        .prop_map(|(key, pieces)| format!("{key}={}", pieces.concat()))
}

/// What NRI makes of the changes: it replaces the first variable of each name.
fn applied(environment: &[String], changes: &[(String, String)]) -> Vec<String> {
    let mut environment = environment.to_vec();
    for (key, value) in changes {
        let line = environment.iter_mut().find(|line| line.split('=').next() == Some(key)).unwrap();
        *line = format!("{key}={value}");
    }
    environment
}

proptest! {
    #[test]
    fn nothing_of_a_placeholder_is_ever_left(
        environment in {
            let (known, unknown) = (Placeholder::random(), Placeholder::random());
            prop::collection::vec(line(known, unknown), 0..5).prop_map(move |lines| (known, lines))
        },
        secret in "(VDBI_PH_|[ -~]{0,8}|__)",
    ) {
        let (known, environment) = environment;
        let secrets = HashMap::from([(known, Secret::new(secret))]);
        if let Ok(changes) = changes(&environment, &secrets) {
            let left = applied(&environment, &changes);
            prop_assert!(left.iter().all(|line| !line.contains(PREFIX)), "{left:?}");
            let changed = environment.iter().filter(|line| line.contains(PREFIX)).count();
            prop_assert_eq!(changes.len(), changed);
        } else {
            prop_assert!(environment.iter().any(|line| line.contains(PREFIX)));
        }
    }

    #[test]
    fn a_url_leads_back_to_the_credential_whatever_it_contains(
        user in "\\PC{0,20}", password in "\\PC{1,20}",
    ) {
        let (user_ph, mut secrets) = one(&user);
        let password_ph = Placeholder::random();
        secrets.insert(password_ph, Secret::new(password.clone()));
        let url = value_of(&format!("postgres://{user_ph}:{password_ph}@db:5432/app"), &secrets);
        let userinfo = url.strip_prefix("postgres://").unwrap().strip_suffix("@db:5432/app").unwrap();
        let (left, right) = userinfo.split_once(':').unwrap();
        prop_assert_eq!(percent_decode_str(left).decode_utf8().unwrap(), user);
        prop_assert_eq!(percent_decode_str(right).decode_utf8().unwrap(), password);
    }

    #[test]
    fn outside_a_url_the_value_is_the_text_with_the_credential_in_it(
        before in "[ -.0-~]{0,10}", after in "[ -~]{0,10}", secret in "[ -~]{1,20}",
    ) {
        let (ph, secrets) = one(&secret);
        prop_assert_eq!(value_of(&format!("{before}{ph}{after}"), &secrets), format!("{before}{secret}{after}"));
    }

    #[test]
    fn both_modes_deliver_the_same_value(
        template in prop_oneof![
            Just("postgresql://db:5432/shop?sslmode=require"),
            Just("jdbc:postgresql://db/shop?user={{user}}&password={{password}}"),
            Just("{{user}}:{{password}}@tcp(db:3306)/shop"),
            Just("Driver=X;UID={{user}};PWD={{password}}"),
        ],
        user in "[a-z0-9-]{1,20}", password in "[ -~]{1,20}",
    ) {
        let template = vdbi_core::annotation::Template::parse(template).unwrap();
        let (user_ph, mut secrets) = one(&user);
        let password_ph = Placeholder::random();
        secrets.insert(password_ph, Secret::new(password.clone()));
        // What the kubelet makes of the pod's value.
        let expanded = |value: Secret| value.expose().replace("$$", "$");
        let placeholders = template.render(&user_ph.to_string(), &Secret::new(password_ph.to_string()));
        let plaintext = template.render(&user, &Secret::new(password));
        prop_assert_eq!(value_of(&expanded(placeholders), &secrets), expanded(plaintext));
    }
}
