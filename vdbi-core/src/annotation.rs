//! What a pod's annotations ask for. Pure: text in, request out.
//!
//! The keys are those of numberly/vault-db-injector 3.2.3, with its documented defaults made true.
//!
//! ```
//! use vdbi_core::annotation::{self, Outcome};
//!
//! let annotations = [("db-creds-injector.numberly.io/main.role".to_owned(), "app".to_owned())].into();
//! let Outcome::Inject(request) = annotation::parse(&annotations, "databases")? else { unreachable!() };
//! assert_eq!(request.databases[0].name, "main");
//! assert_eq!(request.databases[0].engine, "databases");
//! # Ok::<(), annotation::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    ledger::EntryId,
    pod::{ANNOTATION_PREFIX, ROTATION_ANNOTATION},
};

mod template;

pub use template::{Template, TemplateError, encode, is_url, literal};

/// Ids beyond this many in one annotation are not looked at: a pod has a handful of databases, and an annotation of the
/// largest size could name thousands of entries to keep the revoker busy.
const MOST_IDS: usize = 64;

const DEFAULT_USER_KEY: &str = "DBUSER";
const DEFAULT_PASSWORD_KEY: &str = "DBPASSWORD";

/// The keys that follow `<database>.`.
const DATABASE_KEYS: [&str; 8] = [
    "role",
    "mode",
    "env-key-dbuser",
    "env-key-dbpassword",
    "env-key-uri",
    "template",
    "containers",
    "on-conflict",
];

/// What to do with a pod. Whoever asks has to follow each, so that this list is complete.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Issue and deliver credentials.
    Inject(Request),
    /// Leave the pod as it is.
    Untouched {
        /// Why, for the user.
        reason: String,
    },
}

/// What a pod asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// At least one, ordered by name: the order of the ids in the uuid annotation.
    pub databases: Vec<DatabaseRequest>,
    /// How the pod gets another credential before its own ends; `None` where it does not ask for that.
    pub rotation: Option<Rotation>,
    /// What was not understood and does no harm, for the user. Annotations are named without their prefix, since kubectl may
    /// cut a warning after 120 characters.
    pub warnings: Vec<String>,
}

/// One database that a pod asks for.
///
/// A policy with another dialect of annotations writes it as a literal: all of it has to be decided, and a constructor would take
/// three texts that could be swapped.
#[derive(Clone, Debug)]
pub struct DatabaseRequest {
    /// The name that the annotations give it.
    pub name: String,
    /// The mount of the database secrets engine.
    pub engine: String,
    /// The role: in Vault the Kubernetes auth role, the policy and the database role of this name.
    pub role: String,
    /// How the credential reaches the containers.
    pub delivery: Delivery,
    /// The names of the containers that get it; `None` for all of them.
    pub containers: Option<BTreeSet<String>>,
    /// What to do about a variable that a container sets itself.
    pub on_conflict: OnConflict,
}

impl DatabaseRequest {
    /// Whether a container of this name gets the credential.
    pub fn selects(&self, container: &str) -> bool {
        self.containers.as_ref().is_none_or(|names| names.contains(container))
    }

    /// The variables that it sets.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match &self.delivery {
            Delivery::Classic { user_keys, password_keys } => (user_keys, &password_keys[..]),
            Delivery::Uri { keys, .. } => (keys, &[][..]),
        };
        first.iter().chain(second).map(String::as_str)
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (&self.containers, &other.containers) {
            (Some(ours), Some(theirs)) => !ours.is_disjoint(theirs),
            _ => true,
        }
    }
}

/// What to do about a variable that a container sets itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// The pod is denied.
    #[default]
    Refuse,
    /// Ours takes its place.
    Replace,
}

/// How a pod gets another credential before its own reaches its maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rotation {
    /// The pod is evicted, and the one that its controller makes in its place gets a credential of its own.
    Evict,
}

/// How a credential reaches the containers. Whoever delivers has to know each way, so that this list is complete.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// User and password in variables of their own (mode `classic`).
    Classic {
        /// Variables that hold the user.
        user_keys: Vec<String>,
        /// Variables that hold the password.
        password_keys: Vec<String>,
    },
    /// Both in a connection string (mode `uri`).
    Uri {
        /// Variables that hold the connection string.
        keys: Vec<String>,
        /// The connection string before user and password are set.
        template: Template,
    },
}

/// Why annotations cannot be followed. Each message says which one to change, and how.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is the label and nothing else.
    #[error(
        "the pod asks for no database: add the annotation {ANNOTATION_PREFIX}<database>.role with the name of a role, or \
         remove the label"
    )]
    NoDatabase,
    /// A database without a role.
    #[error("database {database} has no role: add the annotation {ANNOTATION_PREFIX}{database}.role")]
    NoRole {
        /// The database.
        database: String,
    },
    /// A mode that does not exist.
    #[error(
        "mode {mode:?} of {subject} is not supported: use classic (user and password) or uri (a connection string)"
    )]
    UnknownMode {
        /// What was written.
        mode: String,
        /// Where.
        subject: String,
    },
    /// A way to deal with conflicts that does not exist.
    #[error(
        "annotation {ANNOTATION_PREFIX}{database}.on-conflict: {value:?} is not supported: use refuse or replace"
    )]
    UnknownConflict {
        /// The database.
        database: String,
        /// What was written.
        value: String,
    },
    /// A way to another credential that does not exist.
    #[error("annotation {ROTATION_ANNOTATION}: {value:?} is not supported: use evict, or remove it")]
    UnknownRotation {
        /// What was written.
        value: String,
    },
    /// Text that would lead to another path in Vault.
    #[error(
        "annotation {ANNOTATION_PREFIX}{key}: {value:?} cannot be a path in Vault: use letters, digits, '-', '_' and '.'{}",
        if *.slashes { ", with '/' between parts" } else { "" }
    )]
    NoPath {
        /// The annotation's key without its prefix.
        key: String,
        /// What was written.
        value: String,
        /// Whether slashes are allowed.
        slashes: bool,
    },
    /// Text that is no name of an environment variable.
    #[error("annotation {ANNOTATION_PREFIX}{key}: {value:?} is no name of an environment variable")]
    NoVariable {
        /// The annotation's key without its prefix.
        key: String,
        /// What was written.
        value: String,
    },
    /// Two values for one variable.
    #[error(
        "the variable {variable} would be set twice, for {first} and for {second}: give each its own with \
         {ANNOTATION_PREFIX}<database>.env-key-dbuser, .env-key-dbpassword or .env-key-uri, or separate containers with \
         .containers"
    )]
    Twice {
        /// The variable.
        variable: String,
        /// What sets it first.
        first: String,
        /// What sets it again.
        second: String,
    },
    /// Mode uri without a variable.
    #[error(
        "database {database} has mode uri and no variable: add {ANNOTATION_PREFIX}{database}.env-key-uri"
    )]
    NoUriKey {
        /// The database.
        database: String,
    },
    /// Mode uri without a usable template.
    #[error("annotation {ANNOTATION_PREFIX}{database}.template: {error}")]
    Template {
        /// The database.
        database: String,
        /// What is wrong with it.
        error: TemplateError,
    },
}

/// Reads a pod's annotations. `default_engine` is the mount of the database secrets engine for pods without the annotation `cluster`.
///
/// # Errors
///
/// See [`enum@Error`]; the pod is to be denied.
pub fn parse(annotations: &BTreeMap<String, String>, default_engine: &str) -> Result<Outcome, Error> {
    let ours = || {
        annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION_PREFIX)?, value.as_str())))
    };
    if ours().any(|(key, _)| key.starts_with("revoke-ttl")) {
        let reason =
            "the pod gets no credential, since its annotation revoke-ttl is of an earlier release: remove it";
        return Ok(Outcome::Untouched { reason: reason.to_owned() });
    }

    let mut global = Global { engine: default_engine, role: "", mode: "" };
    let mut databases: BTreeMap<&str, Database<'_>> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (key, value) in ours() {
        match (key.split_once('.'), key) {
            (Some((name, field)), _) => {
                let database = databases.entry(name).or_default();
                if let Some(slot) = database.slot(field) {
                    *slot = value;
                } else {
                    warnings.push(unknown(key, name, field));
                }
            }
            (None, "cluster") if !value.is_empty() => global.engine = value,
            (None, "role") => global.role = value,
            (None, "mode") => global.mode = value,
            (None, "cluster" | "uuid" | "injected" | "rotation") => {}
            (None, _) => {
                warnings.push(format!("annotation {key} has no effect: did you mean <database>.{key}?"))
            }
        }
    }
    if databases.is_empty() {
        return Err(Error::NoDatabase);
    }
    path("cluster", global.engine, true)?;
    let rotation = rotation(annotations)?;
    let databases = databases
        .into_iter()
        .map(|(name, database)| database.request(name, &global))
        .collect::<Result<Vec<_>, _>>()?;
    refuse_duplicates(&databases)?;
    Ok(Outcome::Inject(Request { databases, rotation, warnings }))
}

/// How a pod with these annotations gets another credential before its own ends, if it asks for that.
///
/// ```
/// use vdbi_core::annotation::{Rotation, rotation};
///
/// let annotations = [("db-creds-injector.numberly.io/rotation".to_owned(), "evict".to_owned())].into();
/// assert_eq!(rotation(&annotations), Ok(Some(Rotation::Evict)));
/// ```
///
/// # Errors
///
/// [`Error::UnknownRotation`].
pub fn rotation(annotations: &BTreeMap<String, String>) -> Result<Option<Rotation>, Error> {
    let value = annotations.get(ROTATION_ANNOTATION).map_or("", |value| value.trim());
    match value.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "evict" => Ok(Some(Rotation::Evict)),
        _ => Err(Error::UnknownRotation { value: value.to_owned() }),
    }
}

/// The ledger entries that a uuid annotation lists. Anybody who may edit the pod may write it, so it is only ever a hint:
/// what is no id is dropped, and so is what comes after more ids than any pod has (64).
///
/// ```
/// use vdbi_core::annotation::parse_uuids;
///
/// let ids = parse_uuids("2f1f6f3e-4c0b-4d0e-9a51-0d6f6c1b7a10, ../other");
/// assert_eq!(ids.len(), 1);
/// ```
pub fn parse_uuids(annotation: &str) -> Vec<EntryId> {
    let ids = annotation.split(',').take(MOST_IDS).filter_map(|id| id.trim().parse().ok());
    let mut seen = BTreeSet::new();
    ids.filter(|&id: &EntryId| seen.insert(id)).collect()
}

struct Global<'a> {
    engine: &'a str,
    role: &'a str,
    mode: &'a str,
}

#[derive(Default)]
struct Database<'a> {
    role: &'a str,
    mode: &'a str,
    user_keys: &'a str,
    password_keys: &'a str,
    uri_keys: &'a str,
    template: &'a str,
    containers: &'a str,
    on_conflict: &'a str,
}

impl<'a> Database<'a> {
    fn slot(&mut self, field: &str) -> Option<&mut &'a str> {
        let [role, mode, user, password, uri, template, containers, on_conflict] = DATABASE_KEYS;
        Some(match field {
            _ if field == role => &mut self.role,
            _ if field == mode => &mut self.mode,
            _ if field == user => &mut self.user_keys,
            _ if field == password => &mut self.password_keys,
            _ if field == uri => &mut self.uri_keys,
            _ if field == template => &mut self.template,
            _ if field == containers => &mut self.containers,
            _ if field == on_conflict => &mut self.on_conflict,
            _ => return None,
        })
    }

    fn request(self, name: &str, global: &Global<'_>) -> Result<DatabaseRequest, Error> {
        path(&format!("{name}.role"), name, false)?;
        let role = if self.role.trim().is_empty() { global.role } else { self.role }.trim();
        if role.is_empty() {
            return Err(Error::NoRole { database: name.to_owned() });
        }
        path(&format!("{name}.role"), role, false)?;
        Ok(DatabaseRequest {
            name: name.to_owned(),
            engine: global.engine.to_owned(),
            role: role.to_owned(),
            containers: self.containers(),
            on_conflict: self.on_conflict(name)?,
            delivery: self.delivery(name, global)?,
        })
    }

    fn containers(&self) -> Option<BTreeSet<String>> {
        let names: BTreeSet<String> = list(self.containers).map(str::to_owned).collect();
        (!names.is_empty()).then_some(names)
    }

    fn on_conflict(&self, name: &str) -> Result<OnConflict, Error> {
        match self.on_conflict.trim().to_ascii_lowercase().as_str() {
            "" | "refuse" => Ok(OnConflict::Refuse),
            "replace" => Ok(OnConflict::Replace),
            _ => {
                Err(Error::UnknownConflict { database: name.to_owned(), value: self.on_conflict.to_owned() })
            }
        }
    }

    fn delivery(self, name: &str, global: &Global<'_>) -> Result<Delivery, Error> {
        let (mode, subject) = match (self.mode.trim(), global.mode.trim()) {
            ("", mode) => (mode, "the pod".to_owned()),
            (mode, _) => (mode, format!("database {name}")),
        };
        let keys = |field: &str, list: &str| variables(&format!("{name}.{field}"), list);
        match mode.to_ascii_lowercase().as_str() {
            "" | "classic" => Ok(Delivery::Classic {
                user_keys: or_default(keys("env-key-dbuser", self.user_keys)?, DEFAULT_USER_KEY),
                password_keys: or_default(
                    keys("env-key-dbpassword", self.password_keys)?,
                    DEFAULT_PASSWORD_KEY,
                ),
            }),
            "uri" => {
                let keys = keys("env-key-uri", self.uri_keys)?;
                if keys.is_empty() {
                    return Err(Error::NoUriKey { database: name.to_owned() });
                }
                let template = Template::parse(self.template)
                    .map_err(|error| Error::Template { database: name.to_owned(), error })?;
                Ok(Delivery::Uri { keys, template })
            }
            _ => Err(Error::UnknownMode { mode: mode.to_owned(), subject }),
        }
    }
}

fn or_default(mut keys: Vec<String>, default: &str) -> Vec<String> {
    if keys.is_empty() {
        keys.push(default.to_owned());
    }
    keys
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn variables(key: &str, names: &str) -> Result<Vec<String>, Error> {
    list(names)
        .map(|name| {
            if is_variable(name) {
                Ok(name.to_owned())
            } else {
                Err(Error::NoVariable { key: key.to_owned(), value: name.to_owned() })
            }
        })
        .collect()
}

/// What every release of Kubernetes accepts: `[-._a-zA-Z][-._a-zA-Z0-9]*`.
fn is_variable(name: &str) -> bool {
    let special = |c: char| matches!(c, '-' | '.' | '_');
    name.chars().all(|c| c.is_ascii_alphanumeric() || special(c))
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Refuses whatever could lead out of the place in Vault where it is put, such as `../sys`.
fn path(key: &str, value: &str, slashes: bool) -> Result<(), Error> {
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(plain) && !part.chars().all(|c| c == '.')
    };
    let safe = if slashes { value.trim_end_matches('/').split('/').all(part) } else { part(value) };
    if safe { Ok(()) } else { Err(Error::NoPath { key: key.to_owned(), value: value.to_owned(), slashes }) }
}

fn refuse_duplicates(databases: &[DatabaseRequest]) -> Result<(), Error> {
    let mut owners: BTreeMap<&str, Vec<(&DatabaseRequest, String)>> = BTreeMap::new();
    for database in databases {
        let values: Vec<(&Vec<String>, &str)> = match &database.delivery {
            Delivery::Classic { user_keys, password_keys } => {
                vec![(user_keys, "user"), (password_keys, "password")]
            }
            Delivery::Uri { keys, .. } => vec![(keys, "connection string")],
        };
        for (keys, value) in values {
            for key in keys {
                let second = format!("the {value} of database {}", database.name);
                let owners = owners.entry(key).or_default();
                if let Some((_, first)) = owners.iter().find(|(owner, _)| owner.overlaps(database)) {
                    return Err(Error::Twice { variable: key.clone(), first: first.clone(), second });
                }
                owners.push((database, second));
            }
        }
    }
    Ok(())
}

fn unknown(key: &str, name: &str, field: &str) -> String {
    let nearest = DATABASE_KEYS
        .into_iter()
        .max_by(|a, b| strsim::jaro_winkler(a, field).total_cmp(&strsim::jaro_winkler(b, field)));
    format!("annotation {key} has no effect: did you mean {name}.{}?", nearest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (format!("{ANNOTATION_PREFIX}{key}"), (*value).to_owned())).collect()
    }

    fn request(pairs: &[(&str, &str)]) -> Result<Request, Error> {
        match parse(&annotations(pairs), "databases")? {
            Outcome::Inject(request) => Ok(request),
            Outcome::Untouched { reason } => panic!("{reason}"),
        }
    }

    fn classic(database: &DatabaseRequest) -> (&[String], &[String]) {
        match &database.delivery {
            Delivery::Classic { user_keys, password_keys } => (user_keys, password_keys),
            Delivery::Uri { .. } => panic!("{database:?}"),
        }
    }

    #[test]
    fn a_role_is_enough() {
        let request = request(&[("main.role", "app")]).unwrap();
        let [database] = &request.databases[..] else { panic!("{request:?}") };
        assert_eq!((database.engine.as_str(), database.role.as_str()), ("databases", "app"));
        assert_eq!(classic(database), (&["DBUSER".to_owned()][..], &["DBPASSWORD".to_owned()][..]));
    }

    #[test]
    fn role_and_mode_of_the_pod_serve_databases_that_name_none() {
        let request = request(&[
            ("role", "app"),
            ("mode", "uri"),
            ("cluster", "team-a/databases"),
            ("b.env-key-uri", "B"),
            ("b.template", "postgresql://db/b"),
            ("a.mode", "Classic"),
            ("a.role", "reader"),
        ])
        .unwrap();
        let [a, b] = &request.databases[..] else { panic!("{request:?}") };
        assert_eq!((a.name.as_str(), a.role.as_str()), ("a", "reader"));
        assert!(matches!(a.delivery, Delivery::Classic { .. }));
        assert_eq!((b.name.as_str(), b.role.as_str(), b.engine.as_str()), ("b", "app", "team-a/databases"));
        assert!(matches!(b.delivery, Delivery::Uri { .. }));
    }

    #[test]
    fn lists_of_variables_are_trimmed() {
        let request = request(&[("main.role", "app"), ("main.env-key-dbuser", " A, B ,")]).unwrap();
        assert_eq!(classic(&request.databases[0]).0, ["A", "B"]);
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_its_annotation() {
        let uri = [("m.role", "r"), ("m.mode", "uri"), ("m.env-key-uri", "U")];
        let cases: [(&[(&str, &str)], &str); 15] = [
            (&[], "<database>.role"),
            (&[("uuid", "x")], "<database>.role"),
            (&[("m.mode", "classic")], "m.role"),
            (&[("m.role", "r"), ("m.mode", "smoke")], "classic"),
            (&[("m.role", "r"), ("mode", "smoke")], "the pod"),
            (&[("m.role", "../sys")], "m.role"),
            (&[("m.role", ".."), ("cluster", "db")], "m.role"),
            (&[("m.role", "r"), ("cluster", "a/../sys")], "cluster"),
            (&[("m.role", "r"), ("m.env-key-dbuser", "1A")], "m.env-key-dbuser"),
            (&[("a.role", "r"), ("b.role", "r")], "DBUSER"),
            (&[("m.role", "r"), ("m.mode", "uri"), ("m.template", "a://b")], "m.env-key-uri"),
            (&uri, "m.template"),
            (&[("m.role", "r"), ("m.on-conflict", "merge")], "refuse or replace"),
            (
                &[("m.role", "r"), ("rotation", "restart")],
                "numberly.io/rotation: \"restart\" is not supported: use evict",
            ),
            (
                &[("a.role", "r"), ("b.role", "r"), ("a.containers", "x"), ("b.containers", "y,x")],
                ".containers",
            ),
        ];
        for (pairs, word) in cases {
            let error = request(pairs).unwrap_err().to_string();
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    }

    #[test]
    fn containers_are_selected_by_name_and_separate_ones_may_share_a_variable() {
        let request = request(&[
            ("role", "r"),
            ("a.containers", " web, migrate "),
            ("a.on-conflict", "Replace"),
            ("b.containers", "worker"),
        ])
        .unwrap();
        let [a, b] = &request.databases[..] else { panic!("{request:?}") };
        assert!(a.selects("web") && a.selects("migrate") && !a.selects("worker"));
        assert_eq!((a.on_conflict, b.on_conflict), (OnConflict::Replace, OnConflict::Refuse));
        assert!(a.variables().eq(b.variables()));
    }

    #[test]
    fn rotation_is_asked_for_by_name_and_is_off_otherwise() {
        for (value, rotation) in
            [("evict", Some(Rotation::Evict)), (" Evict ", Some(Rotation::Evict)), ("", None)]
        {
            let request = request(&[("main.role", "app"), ("rotation", value)]).unwrap();
            assert_eq!((request.rotation, request.warnings.len()), (rotation, 0), "{value:?}");
        }
        assert_eq!(request(&[("main.role", "app")]).unwrap().rotation, None);
    }

    #[test]
    fn warnings_are_short_enough_for_kubectl() {
        let request =
            request(&[("main.role", "app"), ("main.env-key-user", "U"), ("colour", "red")]).unwrap();
        let Ok(Outcome::Untouched { reason }) = parse(&annotations(&[("revoke-ttl", "1h")]), "databases")
        else {
            panic!("an earlier release's pod is left alone")
        };
        for warning in request.warnings.iter().chain([&reason]) {
            assert!(warning.len() <= 120, "{warning}");
        }
    }

    #[test]
    fn an_unknown_key_is_a_warning_that_names_the_nearest() {
        let request =
            request(&[("main.role", "app"), ("main.env-key-user", "U"), ("colour", "red")]).unwrap();
        assert_eq!(request.warnings.len(), 2);
        assert!(request.warnings.iter().any(|warning| warning.contains("main.env-key-dbuser")));
    }

    #[test]
    fn a_pod_of_an_earlier_release_is_left_alone_whatever_else_it_says() {
        let annotations = annotations(&[("revoke-ttl", "1h"), ("main.mode", "smoke")]);
        assert!(matches!(parse(&annotations, "databases"), Ok(Outcome::Untouched { .. })));
    }

    #[test]
    fn uuids_that_are_none_are_dropped_and_their_number_is_bounded() {
        let (a, b) = (EntryId::random(), EntryId::random());
        assert_eq!(parse_uuids(&format!("../x,{a}, {a} ,{b},{a}")), [a, b]);
        assert_eq!(parse_uuids(&format!("{b},{a}")), [b, a]);
        let many: Vec<String> =
            std::iter::repeat_with(|| EntryId::random().to_string()).take(10_000).collect();
        assert_eq!(parse_uuids(&many.join(",")).len(), MOST_IDS);
    }

    proptest! {
        #[test]
        fn no_annotation_makes_the_parser_panic_or_leave_its_path(
            pairs in proptest::collection::btree_map("[a-z.]{0,12}", ".{0,24}", 0..8),
        ) {
            let annotations = pairs.iter().map(|(k, v)| (format!("{ANNOTATION_PREFIX}{k}"), v.clone())).collect();
            if let Ok(Outcome::Inject(request)) = parse(&annotations, "databases") {
                for database in request.databases {
                    for part in database.engine.split('/').chain([&*database.role, &*database.name]) {
                        prop_assert!(part != ".." && part != "." && !part.contains(['?', '#', '%', ' ']));
                    }
                }
            }
        }
    }
}
