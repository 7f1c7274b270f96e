//! How a pod's credentials are written.

use std::{collections::BTreeSet, io, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vdbi_core::{
    credential::{Lease, TokenHandle},
    ledger::EntryId,
    placeholder::Placeholder,
    secret::Secret,
};

use super::{Credential, Held, Source};

/// What reads another one reads nothing.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    version: u32,
    uid: &'a str,
    #[serde(borrow)]
    credentials: Vec<Row<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: String,
    database: String,
    username: String,
    /// Borrowed, so that no copy is left in memory.
    #[serde(borrow)]
    password: std::borrow::Cow<'a, str>,
    lease: String,
    /// `None` where the credential has no token.
    accessor: Option<String>,
    seen_at: Timestamp,
    ttl_seconds: f64,
    user_placeholders: Vec<String>,
    password_placeholders: Vec<String>,
}

pub(super) fn encode(uid: &str, held: &Held) -> io::Result<Secret> {
    let credentials = held.credentials.iter().map(row).collect::<io::Result<_>>()?;
    Ok(Secret::new(serde_json::to_string(&Record { version: VERSION, uid, credentials })?))
}

fn row(credential: &Credential) -> io::Result<Row<'_>> {
    let accessor = match &credential.lease.token {
        TokenHandle::Accessor(accessor) => Some(accessor.clone()),
        TokenHandle::None => None,
        TokenHandle::Raw(_) => {
            return Err(io::Error::other("a credential that was just issued has no raw token"));
        }
    };
    let texts =
        |placeholders: &BTreeSet<Placeholder>| placeholders.iter().map(Placeholder::to_string).collect();
    Ok(Row {
        id: credential.id.to_string(),
        database: credential.database.clone(),
        username: credential.username.clone(),
        password: credential.password.expose().into(),
        lease: credential.lease.id.clone(),
        accessor,
        seen_at: credential.seen_at,
        ttl_seconds: credential.ttl.as_secs_f64(),
        user_placeholders: texts(&credential.user_placeholders),
        password_placeholders: texts(&credential.password_placeholders),
    })
}

/// Errors name no value: they are logged.
pub(super) fn decode(text: &str) -> Result<(String, Held), String> {
    let place =
        |error: serde_json::Error| format!("no record at line {}, column {}", error.line(), error.column());
    let record: Record<'_> = serde_json::from_str(text).map_err(place)?;
    if record.version != VERSION {
        return Err(format!("version {} is not {VERSION}", record.version));
    }
    let credentials = record.credentials.into_iter().map(credential).collect::<Option<_>>();
    let credentials = credentials.ok_or("an id, a placeholder or a time is none")?;
    Ok((record.uid.to_owned(), Held { credentials, source: Source::Unknown }))
}

fn credential(row: Row<'_>) -> Option<Credential> {
    let placeholders = |texts: Vec<String>| -> Option<BTreeSet<Placeholder>> {
        texts.iter().map(|text| text.parse().ok()).collect()
    };
    Some(Credential {
        id: row.id.parse::<EntryId>().ok()?,
        database: row.database,
        username: row.username,
        password: Secret::new(row.password),
        lease: Lease { id: row.lease, token: row.accessor.map_or(TokenHandle::None, TokenHandle::Accessor) },
        seen_at: row.seen_at,
        ttl: Duration::try_from_secs_f64(row.ttl_seconds).ok()?,
        user_placeholders: placeholders(row.user_placeholders)?,
        password_placeholders: placeholders(row.password_placeholders)?,
    })
}
