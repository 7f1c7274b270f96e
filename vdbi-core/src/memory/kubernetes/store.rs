//! The objects, and the history of their changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::watch;

use super::{resource::Resource, selector::Selector, status::Refusal};

/// How many changes are kept for watches; whoever is further behind gets 410 Gone.
const HISTORY: usize = 65_536;

/// How many unfinished paginated lists are kept.
const LISTS: usize = 64;

pub(super) type Object = Arc<Value>;

/// Namespace and name; the namespace is empty for objects that have none.
type Key = (String, String);

#[derive(Debug)]
pub(super) struct Store {
    revision: u64,
    /// Changes up to this revision are forgotten.
    compacted: u64,
    objects: BTreeMap<&'static Resource, BTreeMap<Key, Object>>,
    history: VecDeque<Change>,
    lists: VecDeque<(String, Page)>,
    pulse: watch::Sender<Pulse>,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) resource: &'static Resource,
    /// As it was, unless it was created.
    pub(super) before: Option<Object>,
    /// As it is; of a deleted object its last state, with the resourceVersion of the deletion.
    pub(super) object: Object,
    pub(super) deleted: bool,
}

/// What watches wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pulse {
    pub(super) revision: u64,
    /// How many bookmarks were asked for.
    pub(super) bookmarks: u64,
    /// How often all watches were closed.
    pub(super) closings: u64,
}

/// A list, or the rest of one.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) revision: u64,
    pub(super) objects: VecDeque<Object>,
    pub(super) next: Option<String>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            revision: 0,
            compacted: 0,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            lists: VecDeque::new(),
            pulse: watch::Sender::default(),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn pulse(&self) -> &watch::Sender<Pulse> {
        &self.pulse
    }

    pub(super) fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Object> {
        self.objects.get(resource)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Stores an object under the name in its metadata, and gives it the next resourceVersion.
    pub(super) fn put(&mut self, resource: &'static Resource, mut object: Value) -> Object {
        self.stamp(&mut object);
        let object = Arc::new(object);
        let before = self.objects.entry(resource).or_default().insert(key_of(&object), object.clone());
        self.remember(Change {
            revision: self.revision,
            resource,
            before,
            object: object.clone(),
            deleted: false,
        });
        object
    }

    /// Removes an object; what is returned carries the resourceVersion of the deletion.
    pub(super) fn remove(&mut self, resource: &'static Resource, object: Value) -> Object {
        let mut last = object;
        self.stamp(&mut last);
        let object = Arc::new(last);
        let before = self.objects.entry(resource).or_default().remove(&key_of(&object));
        self.remember(Change {
            revision: self.revision,
            resource,
            before,
            object: object.clone(),
            deleted: true,
        });
        object
    }

    /// All matching objects, ordered by namespace and name, at most `limit` of them unless that is 0.
    pub(super) fn list(&mut self, resource: &'static Resource, selector: &Selector, limit: usize) -> Page {
        let objects = self.objects.get(resource).into_iter().flat_map(BTreeMap::values);
        let objects = objects.filter(|object| selector.matches(object)).cloned().collect();
        self.cut(Page { revision: self.revision, objects, next: None }, limit)
    }

    /// The rest of a list, of the moment when it began.
    pub(super) fn list_rest(&mut self, token: &str, limit: usize) -> Result<Page, Refusal> {
        let page = self.lists.iter().find(|(known, _)| known == token).map(|(_, page)| page.clone());
        let expired = "The provided continue parameter is too old to display a consistent list result.";
        let page = page.ok_or_else(|| Refusal::of_code(410, expired))?;
        Ok(self.cut(page, limit))
    }

    /// The changes after `revision`.
    pub(super) fn changes_after(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Refusal> {
        if revision < self.compacted {
            return Err(Refusal::expired(revision, self.compacted));
        }
        let first = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.range(first..))
    }

    /// Forgets all history, as etcd's compaction does.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
        self.lists.clear();
    }

    fn stamp(&mut self, object: &mut Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
    }

    fn remember(&mut self, change: Change) {
        self.history.push_back(change);
        if self.history.len() > HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.compacted = forgotten.revision;
        }
        self.pulse.send_modify(|pulse| pulse.revision = self.revision);
    }

    fn cut(&mut self, mut page: Page, limit: usize) -> Page {
        if limit == 0 || page.objects.len() <= limit {
            return Page { next: None, ..page };
        }
        let rest = page.objects.split_off(limit);
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.lists.push_back((token.clone(), Page { revision: page.revision, objects: rest, next: None }));
        if self.lists.len() > LISTS {
            self.lists.pop_front();
        }
        Page { next: Some(token), ..page }
    }
}

fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
