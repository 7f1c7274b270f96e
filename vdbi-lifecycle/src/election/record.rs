//! The Lease object, kept as it was read: what this version does not know survives its writes.

use std::{cmp::Ordering, time::Duration};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde_json::{Map, Value, json};

use super::Settings;

/// A Lease as the API server gave it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record(Value);

/// A write, before the wall clock is put into it: the times in a Lease are for people, nobody compares them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    /// The Lease did not exist. What is left of one that was deleted under its leader is kept.
    Create(Option<Record>),
    /// Somebody else's, or nobody's, becomes ours.
    Take(Record),
    /// It stays ours.
    Renew(Record),
    /// It becomes nobody's.
    Release(Record),
}

impl Record {
    /// `None` unless the object carries a resourceVersion, without which there is nothing to compare with.
    pub(crate) fn parse(object: Value) -> Option<Self> {
        let record = Self(object);
        (!record.resource_version().is_empty()).then_some(record)
    }

    pub(crate) fn resource_version(&self) -> &str {
        self.0["metadata"]["resourceVersion"].as_str().unwrap_or_default()
    }

    /// Empty when nobody holds it.
    pub(crate) fn holder(&self) -> &str {
        self.0["spec"]["holderIdentity"].as_str().unwrap_or_default()
    }

    /// How long it stands unchanged, by its own word.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let seconds = self.0["spec"]["leaseDurationSeconds"].as_u64().filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds.min(i32::MAX.unsigned_abs().into())))
    }

    /// How often it has changed hands.
    pub(crate) fn transitions(&self) -> i64 {
        self.0["spec"]["leaseTransitions"].as_i64().unwrap_or_default()
    }

    /// Whether this is a later version than `other`. Since Kubernetes 1.35 resourceVersions are comparable numbers by
    /// contract, and have always been so in practice; what is no number counts as later when it differs.
    pub(crate) fn is_newer_than(&self, other: &str) -> bool {
        newer(self.resource_version(), other)
    }
}

impl Write {
    /// The whole object to send.
    pub(crate) fn object(&self, settings: &Settings, now: Timestamp) -> Value {
        let now = micro_time(now);
        match self {
            Self::Create(last) => {
                let mut object = last.as_ref().map_or_else(|| json!({}), |Record(object)| object.clone());
                let old = object["metadata"].take();
                let mut metadata = Map::new();
                for (key, value) in old.as_object().into_iter().flatten() {
                    if matches!(key.as_str(), "labels" | "annotations" | "ownerReferences") {
                        metadata.insert(key.clone(), value.clone());
                    }
                }
                metadata.insert("name".into(), json!(settings.lease_name));
                metadata.insert("namespace".into(), json!(settings.namespace));
                object["apiVersion"] = json!("coordination.k8s.io/v1");
                object["kind"] = json!("Lease");
                object["metadata"] = Value::Object(metadata);
                with_spec(&mut object, |spec| {
                    hold(spec, settings, &now);
                    if last.is_none() {
                        spec.insert("acquireTime".into(), json!(now));
                        spec.insert("leaseTransitions".into(), json!(0));
                    }
                });
                object
            }
            Self::Take(record) => {
                let transitions = record.transitions().saturating_add(1).clamp(0, i32::MAX.into());
                let mut object = record.0.clone();
                with_spec(&mut object, |spec| {
                    hold(spec, settings, &now);
                    spec.insert("acquireTime".into(), json!(now));
                    spec.insert("leaseTransitions".into(), json!(transitions));
                });
                object
            }
            Self::Renew(Record(object)) => {
                let mut object = object.clone();
                with_spec(&mut object, |spec| hold(spec, settings, &now));
                object
            }
            // What client-go's release leaves: a follower of either kind takes it at once.
            Self::Release(Record(object)) => {
                let mut object = object.clone();
                with_spec(&mut object, |spec| {
                    spec.insert("holderIdentity".into(), json!(""));
                    spec.insert("leaseDurationSeconds".into(), json!(1));
                    spec.insert("acquireTime".into(), json!(now));
                    spec.insert("renewTime".into(), json!(now));
                });
                object
            }
        }
    }
}

/// Whether the resourceVersion `one` is later than `other`; everything is later than none.
pub(crate) fn newer(one: &str, other: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(one) && is_number(other) {
        let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
        return one.len().cmp(&other.len()).then_with(|| one.cmp(other)) == Ordering::Greater;
    }
    one != other
}

fn hold(spec: &mut Map<String, Value>, settings: &Settings, now: &str) {
    spec.insert("holderIdentity".into(), json!(settings.identity.as_str()));
    spec.insert("leaseDurationSeconds".into(), json!(settings.lease_seconds()));
    spec.insert("renewTime".into(), json!(now));
}

/// Changes the spec; one that is null or missing becomes an empty one.
fn with_spec(object: &mut Value, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut spec = match object["spec"].take() {
        Value::Object(spec) => spec,
        _ => Map::new(),
    };
    change(&mut spec);
    object["spec"] = Value::Object(spec);
}

/// Kubernetes' MicroTime: always six digits, or the API server refuses it.
fn micro_time(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    PRINTER.timestamp_to_string(&time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::{Identity, LeaseRef};

    fn settings() -> Settings {
        Settings::new(
            LeaseRef { namespace: "vdbi".into(), name: "renewer".into() },
            Identity::new("a").with_uid("1"),
        )
    }

    fn record() -> Record {
        Record::parse(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "renewer", "namespace": "vdbi", "uid": "u", "resourceVersion": "41",
                "labels": {"app": "vdbi"}},
            "spec": {"holderIdentity": "other", "leaseDurationSeconds": 30, "acquireTime": "2026-01-01T00:00:00.000000Z",
                "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 7, "preferredHolder": "someone"},
        }))
        .unwrap()
    }

    #[test]
    fn a_taken_lease_keeps_what_is_not_understood() {
        let settings = settings();
        let taken = Write::Take(record()).object(&settings, Timestamp::UNIX_EPOCH);
        assert_eq!(taken["metadata"], record().0["metadata"]);
        assert_eq!(taken["spec"]["preferredHolder"], "someone");
        assert_eq!(taken["spec"]["holderIdentity"], settings.identity.as_str());
        assert_eq!(taken["spec"]["leaseDurationSeconds"], 15);
        assert_eq!(taken["spec"]["leaseTransitions"], 8);
        assert_eq!(taken["spec"]["acquireTime"], "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_renewal_keeps_transitions_and_the_time_of_acquisition() {
        let renewed = Write::Renew(record()).object(&settings(), Timestamp::UNIX_EPOCH);
        assert_eq!(renewed["spec"]["leaseTransitions"], 7);
        assert_eq!(renewed["spec"]["acquireTime"], "2026-01-01T00:00:00.000000Z");
        assert_eq!(renewed["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_released_lease_is_what_client_go_leaves() {
        let released = Write::Release(record()).object(&settings(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            released["spec"],
            json!({"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": "1970-01-01T00:00:00.000000Z",
                "renewTime": "1970-01-01T00:00:00.000000Z", "leaseTransitions": 7, "preferredHolder": "someone"})
        );
    }

    #[test]
    fn a_recreated_lease_sheds_its_old_version_and_keeps_its_count() {
        let again = Write::Create(Some(record())).object(&settings(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            again["metadata"],
            json!({"name": "renewer", "namespace": "vdbi", "labels": {"app": "vdbi"}})
        );
        assert_eq!(again["spec"]["leaseTransitions"], 7);
        let new = Write::Create(None).object(&settings(), Timestamp::UNIX_EPOCH);
        assert_eq!(new["spec"]["leaseTransitions"], 0);
    }

    #[test]
    fn null_fields_read_as_absent() {
        for spec in [
            Value::Null,
            json!({"holderIdentity": null, "leaseDurationSeconds": null, "leaseTransitions": null}),
        ] {
            let record = Record::parse(json!({"metadata": {"resourceVersion": "1"}, "spec": spec})).unwrap();
            assert_eq!((record.holder(), record.duration()), ("", None));
            let taken = Write::Take(record).object(&settings(), Timestamp::UNIX_EPOCH);
            assert_eq!(taken["spec"]["leaseTransitions"], 1);
        }
    }

    #[test]
    fn versions_compare_as_numbers_of_any_length() {
        assert!(newer("10", "9"));
        assert!(!newer("9", "10"));
        assert!(!newer("9", "9"));
        assert!(newer("100000000000000000000000", "99999999999999999999999"));
        assert!(newer("1", ""));
        assert!(newer("b", "a"));
    }
}
