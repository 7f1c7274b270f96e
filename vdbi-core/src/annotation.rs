//! stub
#![allow(missing_docs)]
use crate::{ledger::EntryId, secret::Secret};
use std::collections::BTreeMap;
#[derive(Clone, Debug)]
pub struct DatabaseRequest {
    pub name: String,
    pub engine: String,
    pub role: String,
    pub delivery: Delivery,
}
#[derive(Clone, Debug)]
pub enum Delivery {
    Classic { user_keys: Vec<String>, password_keys: Vec<String> },
    Uri { keys: Vec<String>, template: Template },
}
#[derive(Clone, Debug)]
pub struct Template;
impl Template {
    pub fn render(&self, _u: &str, _p: &Secret) -> Secret {
        Secret::new("")
    }
}
#[derive(Clone, Debug)]
pub struct Request {
    pub databases: Vec<DatabaseRequest>,
    pub warnings: Vec<String>,
}
#[derive(Clone, Debug)]
pub enum Outcome {
    Inject(Request),
    Untouched { reason: String },
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
pub fn parse(_a: &BTreeMap<String, String>, _e: &str) -> Result<Outcome, Error> {
    Err(Error)
}
pub fn parse_uuids(_t: &str) -> Vec<EntryId> {
    vec![]
}
