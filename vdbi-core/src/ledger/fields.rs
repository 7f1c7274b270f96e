//! An entry as the string fields that KV v2 stores: the Go product's keys, and ours beside them.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use thiserror::Error;

use super::{Entry, Owner};
use crate::{
    credential::{Lease, TokenHandle},
    pod::PodRef,
    secret::Secret,
};

/// The version of the fields that this release writes.
const SCHEMA: &str = "1";

/// Bytes in one value of a key's custom metadata, at most.
const LONGEST_NOTE: usize = 512;

/// What the field `Token` says where there is none; it tells such an entry from one that has lost its accessor.
const NO_TOKEN: &str = "none";

/// Why stored fields are no entry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldError {
    /// A field that every entry has is missing or empty.
    #[error("its field {0} is missing")]
    Missing(&'static str),
    /// `LeaseDuration` is no whole number.
    #[error("its field LeaseDuration is no whole number of seconds")]
    LeaseDuration,
    /// `IssuedAt` is no RFC 3339 time.
    #[error("its field IssuedAt is no RFC 3339 time")]
    IssuedAt,
    /// A later release wrote it.
    #[error("its schema is {0:?}, this release reads up to {SCHEMA}: update this component")]
    Schema(String),
}

impl Entry {
    /// The fields to store. They hold a secret only where the entry has a raw token.
    pub fn to_fields(&self) -> BTreeMap<&'static str, Secret> {
        let mut fields = BTreeMap::new();
        let mut put = |key, value: &str| fields.insert(key, Secret::new(value));
        put("LeaseId", &self.lease.id);
        let raw = match &self.lease.token {
            TokenHandle::Raw(token) => Some(token),
            TokenHandle::Accessor(accessor) => {
                put("TokenAccessor", accessor);
                self.raw_token.as_ref()
            }
            TokenHandle::None => {
                put("Token", NO_TOKEN);
                None
            }
        };
        put("TokenId", raw.map_or("", Secret::expose));
        put("Namespace", &self.pod.namespace);
        put("ServiceAccountName", &self.pod.service_account);
        put("PodName", self.pod.name.as_deref().unwrap_or_default());
        put("NodeName", self.pod.node.as_deref().unwrap_or_default());
        put("PodUid", self.pod.uid.as_deref().unwrap_or_default());
        put("Database", &self.database);
        put("Role", &self.role);
        if let Some(Owner { cluster, release }) = &self.owner {
            put("ClusterId", cluster);
            put("Release", release);
        }
        if let Some(issued_at) = self.issued_at {
            put("IssuedAt", &issued_at.to_string());
        }
        if let Some(ttl) = self.ttl {
            put("LeaseDuration", &ttl.as_secs().to_string());
        }
        put("Schema", SCHEMA);
        fields
    }

    /// The fields to note where many entries are told in one answer, empty ones left out. `None` for an entry that holds a raw
    /// token, which must not stand anywhere else, and for one with a field that KV's custom metadata cannot take.
    pub fn to_notes(&self) -> Option<BTreeMap<&'static str, Secret>> {
        if self.raw_token.is_some() || matches!(self.lease.token, TokenHandle::Raw(_)) {
            return None;
        }
        let mut fields = self.to_fields();
        fields.retain(|_, value| !value.expose().is_empty());
        fields.values().all(|value| value.expose().len() <= LONGEST_NOTE).then_some(fields)
    }

    /// Reads what [`Entry::to_fields`] or the Go product stored.
    ///
    /// # Errors
    ///
    /// Which field is wrong, without its value.
    pub fn from_fields(mut fields: BTreeMap<String, Secret>) -> Result<Self, FieldError> {
        let mut take = |key: &str| fields.remove(key).filter(|value| !value.expose().is_empty());
        let mut text = |key: &str| take(key).map(|value| value.expose().to_owned());
        if let Some(schema) = text("Schema").filter(|schema| schema != SCHEMA) {
            return Err(FieldError::Schema(schema));
        }
        let id = text("LeaseId").ok_or(FieldError::Missing("LeaseId"))?;
        let accessor = text("TokenAccessor");
        let owner = match (text("ClusterId"), text("Release")) {
            (Some(cluster), Some(release)) => Some(Owner { cluster, release }),
            _ => None,
        };
        let issued_at = text("IssuedAt")
            .map(|time| time.parse::<Timestamp>().map_err(|_| FieldError::IssuedAt))
            .transpose()?;
        let ttl = text("LeaseDuration")
            .map(|seconds| seconds.parse().map(Duration::from_secs).map_err(|_| FieldError::LeaseDuration))
            .transpose()?;
        let pod = PodRef {
            namespace: text("Namespace").ok_or(FieldError::Missing("Namespace"))?,
            name: text("PodName"),
            uid: text("PodUid"),
            service_account: text("ServiceAccountName").unwrap_or_default(),
            node: text("NodeName"),
        };
        let tokenless = text("Token").is_some_and(|token| token == NO_TOKEN);
        let (database, role) = (text("Database").unwrap_or_default(), text("Role").unwrap_or_default());
        let raw = take("TokenId");
        let (token, raw_token) = match (accessor, raw) {
            (Some(accessor), raw) => (TokenHandle::Accessor(accessor), raw),
            (None, Some(raw)) => (TokenHandle::Raw(raw), None),
            (None, None) if tokenless => (TokenHandle::None, None),
            (None, None) => return Err(FieldError::Missing("TokenAccessor")),
        };
        Ok(Self { lease: Lease { id, token }, owner, pod, database, role, issued_at, ttl, raw_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            lease: Lease {
                id: "databases/creds/app/abc".into(),
                token: TokenHandle::Accessor("accessor".into()),
            },
            owner: Some(Owner { cluster: "c1".into(), release: "prod".into() }),
            pod: PodRef {
                namespace: "shop".into(),
                name: Some("web-0".into()),
                uid: None,
                service_account: "app1".into(),
                node: None,
            },
            database: "main".into(),
            role: "app".into(),
            issued_at: Some("2026-11-24T01:02:03Z".parse().unwrap()),
            ttl: Some(Duration::from_secs(3600)),
            raw_token: None,
        }
    }

    fn stored(fields: BTreeMap<&'static str, Secret>) -> BTreeMap<String, Secret> {
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    #[test]
    fn an_entry_survives_storage() {
        let written = entry().to_fields();
        let read = Entry::from_fields(stored(written.clone())).unwrap();
        let again = read.to_fields();
        assert!(written.keys().eq(again.keys()));
        for (key, value) in &written {
            assert_eq!(value.expose(), again[key].expose(), "{key}");
        }
    }

    #[test]
    fn the_raw_token_is_not_stored_unless_the_entry_has_one() {
        assert_eq!(entry().to_fields()["TokenId"].expose(), "");
        let way_back = Entry { raw_token: Some(Secret::new("s.raw")), ..entry() };
        assert_eq!(way_back.to_fields()["TokenId"].expose(), "s.raw");
    }

    #[test]
    fn an_entry_of_the_go_product_is_read_with_its_raw_token() {
        let fields = [
            ("LeaseId", "databases/creds/app/abc"),
            ("TokenId", "s.raw"),
            ("Namespace", "shop"),
            ("ServiceAccountName", "app1"),
            ("PodName", ""),
            ("NodeName", ""),
        ];
        let fields = fields.map(|(key, value)| (key.to_owned(), Secret::new(value))).into();
        let entry = Entry::from_fields(fields).unwrap();
        assert!(matches!(&entry.lease.token, TokenHandle::Raw(token) if token.expose() == "s.raw"));
        assert_eq!(entry.owner, None);
        assert_eq!(entry.pod.name, None);
    }

    #[test]
    fn notes_are_the_same_entry_and_never_hold_a_token() {
        let notes = entry().to_notes().unwrap();
        assert!(!notes.contains_key("TokenId"));
        let read = Entry::from_fields(stored(notes)).unwrap();
        for (key, value) in &entry().to_fields() {
            assert_eq!(value.expose(), read.to_fields()[key].expose(), "{key}");
        }
        let token = || Secret::new("s.raw");
        assert!(Entry { raw_token: Some(token()), ..entry() }.to_notes().is_none());
        let lease = Lease { token: TokenHandle::Raw(token()), ..entry().lease };
        assert!(Entry { lease, ..entry() }.to_notes().is_none());
        let long = Lease { id: "x".repeat(513), ..entry().lease };
        assert!(Entry { lease: long, ..entry() }.to_notes().is_none());
    }

    #[test]
    fn an_entry_without_a_token_is_told_from_one_that_lost_its_accessor() {
        let lease = Lease { token: TokenHandle::None, ..entry().lease };
        let mut fields = stored(Entry { lease, ..entry() }.to_fields());
        let read = Entry::from_fields(fields.clone()).unwrap();
        assert!(matches!(read.lease.token, TokenHandle::None));
        fields.remove("Token");
        assert_eq!(Entry::from_fields(fields).unwrap_err(), FieldError::Missing("TokenAccessor"));
    }

    #[test]
    fn a_later_schema_is_refused() {
        let mut fields = stored(entry().to_fields());
        fields.insert("Schema".into(), Secret::new("2"));
        assert_eq!(Entry::from_fields(fields).unwrap_err(), FieldError::Schema("2".into()));
    }
}
