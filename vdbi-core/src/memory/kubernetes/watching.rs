//! Watches.

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::bytes::Bytes;
use tower::BoxError;

use super::{
    KubernetesApi,
    call::Request,
    connection::{AnswerBody, Link, metadata_of},
    resource::Resource,
    selector::Selector,
    status::Refusal,
    store::{Change, Pulse, Store},
};

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a watch lasts that does not say so itself.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Begins a watch.
pub(super) fn start(
    api: &KubernetesApi,
    link: Link,
    request: &Request,
) -> Result<Response<AnswerBody>, Refusal> {
    let watch = Watch::begin(api, link, request)?;
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    let frames = lines.filter_map(|line| async {
        match line {
            Ok(line) => Full::new(line).frame().await.map(|frame| frame.map_err(|never| match never {})),
            Err(error) => Some(Err(error)),
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Watch {
    api: KubernetesApi,
    link: Link,
    resource: &'static Resource,
    selector: Selector,
    metadata_only: bool,
    bookmarks: bool,
    /// What was seen of the history.
    revision: u64,
    pulses: watch::Receiver<Pulse>,
    begun: Pulse,
    lines: VecDeque<Bytes>,
    ends_at: Instant,
    bookmark_at: Instant,
    over: bool,
}

impl Watch {
    fn begin(api: &KubernetesApi, link: Link, request: &Request) -> Result<Self, Refusal> {
        let query = &request.query;
        if query.send_initial_events {
            let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                       feature gate is enabled";
            return Err(Refusal::of_code(422, format!("ListOptions.meta.k8s.io \"\" is invalid: {why}")));
        }
        let from: u64 = match query.resource_version.as_str() {
            "" => 0,
            version => version.parse().map_err(|_| {
                Refusal::bad_request(format!("Invalid value: {version:?}: invalid resource version"))
            })?,
        };
        let mut store = api.store();
        let pulses = store.pulse().subscribe();
        let begun = *pulses.borrow();
        let now = Instant::now();
        let mut watch = Self {
            api: api.clone(),
            link,
            resource: request.resource,
            selector: request.selector.clone(),
            metadata_only: request.metadata_only,
            bookmarks: query.bookmarks,
            revision: from,
            pulses,
            begun,
            lines: VecDeque::new(),
            ends_at: now + query.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            bookmark_at: now + BOOKMARK_INTERVAL,
            over: false,
        };
        if from == 0 {
            let page = store.list(request.resource, &request.selector, 0);
            for object in &page.objects {
                watch.push("ADDED", object);
            }
            watch.revision = page.revision;
        }
        Ok(watch)
    }

    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if !self.lines.is_empty() {
                return match self.link.passable_for_watches().await {
                    Ok(()) => self.lines.pop_front().map(Ok),
                    Err(error) => self.break_off(error),
                };
            }
            if self.over {
                return None;
            }
            let pulse = *self.pulses.borrow_and_update();
            self.catch_up();
            if pulse.closings != self.begun.closings {
                self.over = true;
            } else if pulse.bookmarks != self.begun.bookmarks {
                self.begun.bookmarks = pulse.bookmarks;
                self.push_bookmark();
            }
            if self.over || !self.lines.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.pulses.changed() => self.over |= changed.is_err(),
                error = self.link.refused() => return self.break_off(error),
                () = tokio::time::sleep_until(self.ends_at) => {
                    self.push_bookmark();
                    self.over = true;
                }
                () = tokio::time::sleep_until(self.bookmark_at), if self.bookmarks => {
                    self.bookmark_at += BOOKMARK_INTERVAL;
                    self.push_bookmark();
                }
            }
        }
    }

    fn break_off(&mut self, error: BoxError) -> Option<Result<Bytes, BoxError>> {
        self.lines.clear();
        self.over = true;
        Some(Err(error))
    }

    /// Turns what happened since the last time into lines.
    fn catch_up(&mut self) {
        let api = self.api.clone();
        let store: &Store = &api.store();
        let resource = self.resource;
        match store.changes_after(self.revision) {
            Ok(changes) => {
                for change in changes.filter(|change| change.resource == resource) {
                    self.push_change(change);
                }
                self.revision = self.revision.max(store.revision());
            }
            Err(expired) => {
                self.push_line("ERROR", &expired.to_json());
                self.over = true;
            }
        }
    }

    /// An object that stops matching is deleted for this watch, and one that starts matching is new.
    fn push_change(&mut self, change: &Change) {
        let matched = change.before.as_ref().filter(|before| self.selector.matches(before));
        let matches = !change.deleted && self.selector.matches(&change.object);
        match (matched, matches) {
            (None, true) => self.push("ADDED", &change.object),
            (Some(_), true) => self.push("MODIFIED", &change.object),
            (Some(_), false) if change.deleted => self.push("DELETED", &change.object),
            (Some(before), false) => {
                // As an API server does it: the last state that matched, at the version that ended it.
                let mut last = Value::clone(before);
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                self.push("DELETED", &last);
            }
            (None, false) => {}
        }
    }

    fn push_bookmark(&mut self) {
        if self.bookmarks {
            let metadata = json!({"resourceVersion": self.revision.to_string(), "creationTimestamp": null});
            self.push(
                "BOOKMARK",
                &json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata}),
            );
        }
    }

    fn push(&mut self, event: &str, object: &Value) {
        if self.metadata_only {
            self.push_line(event, &metadata_of(object));
        } else {
            self.push_line(event, object);
        }
    }

    fn push_line(&mut self, event: &str, object: &Value) {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        self.lines.push_back(line.into());
    }
}
