//! Every request that is made, with its path, verb and body.

use std::collections::BTreeMap;

use rustify::enums::RequestMethod;
use rustify_derive::Endpoint;
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, IgnoredAny},
};

use super::path::Path;
use crate::{
    ledger::{Entry, EntryId, Stored},
    secret::Secret,
};

/// Beside an entry's own fields: the version of the entry that its notes repeat.
pub(super) const NOTED_VERSION: &str = "EntryVersion";

/// A login with a service account's token, ours or a pod's.
#[derive(Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST", response = "IgnoredAny")]
pub(super) struct KubernetesLogin<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    pub(super) role: &'a str,
    pub(super) jwt: &'a str,
}

/// What a role of the Kubernetes auth method binds.
#[derive(Endpoint)]
#[endpoint(path = "auth/{self.mount}/role/{self.role}", response = "AuthRole")]
pub(super) struct ReadAuthRole<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) role: &'a Path,
}

/// A role of the Kubernetes auth method, as far as authorization needs it. Lists may be absent or null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthRole {
    pub(super) token_policies: Option<Vec<String>>,
    /// The name of `token_policies` before Vault 1.2, which old roles still have.
    pub(super) policies: Option<Vec<String>>,
    pub(super) bound_service_account_names: Option<Vec<String>>,
    pub(super) bound_service_account_namespaces: Option<Vec<String>>,
    pub(super) bound_service_account_namespace_selector: Option<String>,
}

/// A token for a pod.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/{self.target}", method = "POST", response = "IgnoredAny")]
pub(super) struct CreateToken<'a> {
    /// `create/<token role>`, or `create-orphan`, which needs sudo.
    #[endpoint(skip)]
    pub(super) target: String,
    pub(super) policies: [&'a str; 1],
    /// Seconds with the suffix `s`. A token role has its own, and naming one beside it needs sudo.
    pub(super) period: Option<String>,
    pub(super) display_name: &'static str,
    pub(super) meta: BTreeMap<&'static str, &'a str>,
}

/// Prolongs the token that the request is made with.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/renew-self", method = "POST", response = "IgnoredAny")]
pub(super) struct RenewSelf {}

/// Ends the token that the request is made with.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/revoke-self", method = "POST", response = "IgnoredAny")]
pub(super) struct RevokeSelf {}

/// Prolongs a token by its accessor.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/renew-accessor", method = "POST", response = "IgnoredAny")]
pub(super) struct RenewAccessor<'a> {
    pub(super) accessor: &'a str,
}

/// Ends a token by its accessor.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/revoke-accessor", method = "POST", response = "IgnoredAny")]
pub(super) struct RevokeAccessor<'a> {
    pub(super) accessor: &'a str,
}

/// Prolongs a token of an entry that was taken over.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/renew", method = "POST", response = "IgnoredAny")]
pub(super) struct RenewToken<'a> {
    pub(super) token: &'a str,
}

/// Ends a token of an entry that was taken over.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/revoke", method = "POST", response = "IgnoredAny")]
pub(super) struct RevokeToken<'a> {
    pub(super) token: &'a str,
}

/// Creates a database user. Not idempotent, and giving up on it may leak one.
#[derive(Endpoint)]
#[endpoint(path = "{self.engine}/creds/{self.role}", response = "Credentials")]
pub(super) struct ReadCredentials<'a> {
    #[endpoint(skip)]
    pub(super) engine: &'a Path,
    #[endpoint(skip)]
    pub(super) role: &'a Path,
}

/// A new database user.
#[derive(Debug, Deserialize)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: Secret,
}

/// Prolongs a lease by its own default: an increment could shorten it.
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/renew", method = "POST", response = "IgnoredAny")]
pub(super) struct RenewLease<'a> {
    pub(super) lease_id: &'a str,
}

/// Ends a lease, and answers when the database user is gone.
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/revoke", method = "POST", response = "IgnoredAny")]
pub(super) struct RevokeLease<'a> {
    pub(super) lease_id: &'a str,
    pub(super) sync: bool,
}

/// Reads a ledger entry.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/data/{self.prefix}/{self.id}", response = "KvEntry")]
pub(super) struct ReadEntry<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) prefix: &'a Path,
    #[endpoint(skip)]
    pub(super) id: EntryId,
}

/// What KV version 2 has under a key.
#[derive(Debug, Deserialize)]
pub(super) struct KvEntry {
    pub(super) data: Option<BTreeMap<String, Field>>,
    pub(super) metadata: KvVersion,
}

/// The version of what is stored.
#[derive(Debug, Deserialize)]
pub(super) struct KvVersion {
    pub(super) version: u64,
}

/// One field: its text, or `None` for anything but text.
#[derive(Debug)]
pub(super) struct Field(pub(super) Option<Secret>);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(Secret),
            Other(IgnoredAny),
        }
        Ok(Self(match Any::deserialize(deserializer)? {
            Any::Text(text) => Some(text),
            Any::Other(_) => None,
        }))
    }
}

/// Writes a ledger entry, if its version is still the expected one.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/data/{self.prefix}/{self.id}", method = "POST", response = "KvVersion")]
pub(super) struct WriteEntry<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) prefix: &'a Path,
    #[endpoint(skip)]
    pub(super) id: EntryId,
    pub(super) data: BTreeMap<&'static str, &'a str>,
    pub(super) options: CheckAndSet,
}

/// The version that is to be replaced; 0 when there must be none.
#[derive(Serialize)]
pub(super) struct CheckAndSet {
    pub(super) cas: u64,
}

/// Lists the keys of all ledger entries.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/metadata/{self.prefix}", method = "LIST", response = "Keys")]
pub(super) struct ListEntries<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) prefix: &'a Path,
}

/// The keys of a folder.
#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    pub(super) keys: Vec<String>,
}

/// Lists the keys of all ledger entries with what is noted beside each; OpenBao only.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/detailed-metadata/{self.prefix}", method = "LIST", response = "Details")]
pub(super) struct ListDetails<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) prefix: &'a Path,
}

/// The keys of a folder and what is noted beside each.
#[derive(Debug, Deserialize)]
pub(super) struct Details {
    pub(super) key_info: BTreeMap<String, Detail>,
}

/// The entry that is noted beside one key, if it is the one that is stored. It is made of the notes while the answer is read: the notes
/// of all keys together would be several times as large.
#[derive(Debug, Deserialize)]
#[serde(from = "Notes")]
pub(super) struct Detail(pub(super) Option<Box<Stored>>);

#[derive(Deserialize)]
struct Notes {
    current_version: u64,
    custom_metadata: Option<BTreeMap<String, Secret>>,
}

impl From<Notes> for Detail {
    fn from(Notes { current_version, custom_metadata }: Notes) -> Self {
        let noted = || {
            let mut notes = custom_metadata?;
            let version: u64 = notes.remove(NOTED_VERSION)?.expose().parse().ok()?;
            let entry = Entry::from_fields(notes).ok()?;
            (version == current_version).then(|| Box::new(Stored { entry, version }))
        };
        Self(noted())
    }
}

/// Notes something beside a ledger entry that exists; a patch creates no key.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/metadata/{self.prefix}/{self.id}", method = "PATCH", response = "IgnoredAny")]
pub(super) struct DescribeEntry<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) prefix: &'a Path,
    #[endpoint(skip)]
    pub(super) id: EntryId,
    pub(super) custom_metadata: BTreeMap<&'static str, &'a str>,
}

/// Removes a ledger entry with its key; deleting only the data would leave the key in the list.
#[derive(Endpoint)]
#[endpoint(
    path = "{self.mount}/metadata/{self.prefix}/{self.id}",
    method = "DELETE",
    response = "IgnoredAny"
)]
pub(super) struct DeleteEntry<'a> {
    #[endpoint(skip)]
    pub(super) mount: &'a Path,
    #[endpoint(skip)]
    pub(super) prefix: &'a Path,
    #[endpoint(skip)]
    pub(super) id: EntryId,
}

/// The facts about the token that the request is made with.
#[derive(Endpoint)]
#[endpoint(path = "auth/token/lookup-self", response = "TokenFacts")]
pub(super) struct LookupSelf {}

/// A token, as it sees itself.
#[derive(Debug, Deserialize)]
pub(super) struct TokenFacts {
    /// Seconds; absent without one.
    #[serde(default)]
    pub(super) period: u64,
    /// Empty for a batch token.
    #[serde(default)]
    pub(super) accessor: String,
}

/// A request whose number and time are measured.
pub(super) trait Measured: rustify::Endpoint {
    /// Its name in the metrics.
    const OPERATION: &'static str;
}

macro_rules! measured {
    ($($endpoint:ty => $operation:literal,)*) => {
        $(impl Measured for $endpoint {
            const OPERATION: &'static str = $operation;
        })*
    };
}

measured! {
    KubernetesLogin<'_> => "login",
    ReadAuthRole<'_> => "read_auth_role",
    CreateToken<'_> => "create_token",
    LookupSelf => "lookup_self",
    RenewSelf => "renew_self",
    RevokeSelf => "revoke_self",
    RenewAccessor<'_> => "renew_token",
    RevokeAccessor<'_> => "revoke_token",
    RenewToken<'_> => "renew_token",
    RevokeToken<'_> => "revoke_token",
    ReadCredentials<'_> => "issue",
    RenewLease<'_> => "renew_lease",
    RevokeLease<'_> => "revoke_lease",
    ReadEntry<'_> => "read_entry",
    WriteEntry<'_> => "write_entry",
    ListEntries<'_> => "list_entries",
    ListDetails<'_> => "list_entries",
    DescribeEntry<'_> => "describe_entry",
    DeleteEntry<'_> => "delete_entry",
}

/// The line of a policy that allows this request.
pub(super) fn policy_line<E: rustify::Endpoint>(endpoint: &E) -> String {
    let capability = match endpoint.method() {
        RequestMethod::GET => "\"read\"",
        RequestMethod::LIST => "\"list\"",
        RequestMethod::DELETE => "\"delete\"",
        RequestMethod::PATCH => "\"patch\"",
        _ if endpoint.path().contains("/data/") => "\"create\", \"update\"",
        _ => "\"update\"",
    };
    let slash = if matches!(endpoint.method(), RequestMethod::LIST) { "/" } else { "" };
    format!("path \"{}{slash}\" {{ capabilities = [{capability}] }}", endpoint.path())
}
