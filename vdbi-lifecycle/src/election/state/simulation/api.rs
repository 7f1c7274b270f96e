//! The API server: one Lease, its history, and whether a write is compared.

use serde_json::{Value, json};

use super::{Failure, Fault, Record};

/// A write on its way: whether it creates, and the object.
pub(super) type Sent = (bool, Value);

#[derive(Debug, Default)]
pub(super) struct Api {
    pub(super) lease: Option<Value>,
    /// Whether it was a deletion, and the object; the version is the index plus one.
    pub(super) history: Vec<(bool, Value)>,
    pub(super) fault: Option<Fault>,
}

impl Api {
    pub(super) fn read(&self) -> Option<Record> {
        self.lease.clone().and_then(Record::parse)
    }

    pub(super) fn write(&mut self, (create, object): Sent) -> Result<Record, Failure> {
        let unchecked = self.fault == Some(Fault::NoCompareAndSwap);
        let accepted = match &self.lease {
            None => create,
            Some(lease) => !create && (unchecked || version(&object) == version(lease)),
        };
        if !accepted {
            return Err(Failure::Conflict);
        }
        Ok(Record::parse(self.commit(false, object)).unwrap())
    }

    pub(super) fn delete(&mut self) -> bool {
        let Some(lease) = self.lease.clone() else { return false };
        self.commit(true, lease);
        true
    }

    /// What a watch from this version on has missed. Without a version it begins with what is there.
    pub(super) fn since(&self, version: &str) -> Vec<(bool, Value)> {
        match version.parse::<usize>() {
            Ok(version) => self.history[version..].to_vec(),
            Err(_) => self.lease.clone().map(|lease| (false, lease)).into_iter().collect(),
        }
    }

    fn commit(&mut self, delete: bool, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!((self.history.len() + 1).to_string());
        self.lease = (!delete).then(|| object.clone());
        self.history.push((delete, object.clone()));
        object
    }
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}
