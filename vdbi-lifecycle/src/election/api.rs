//! The requests, on the raw object: typed clients drop the fields that they do not know.

use std::{error::Error, sync::Arc, time::Duration};

use futures::{
    AsyncBufReadExt, FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use http::{StatusCode, header::RETRY_AFTER};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Client, Resource,
    api::{GetParams, PostParams, WatchEvent, WatchParams},
    client::Body,
    core::Request,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Settings,
    record::{Record, Write},
    state::{Event, Failure, WatchEnd},
    view::View,
};

/// One Lease at the API server. Needs the verbs get, create, update and watch on leases in its namespace.
#[derive(Clone)]
pub(super) struct LeaseApi {
    client: Client,
    requests: Request,
    name: String,
    view: Arc<View>,
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Value,
}

impl LeaseApi {
    pub(super) fn new(client: Client, settings: &Settings, view: Arc<View>) -> Self {
        let requests = Request::new(Lease::url_path(&(), Some(&settings.namespace)));
        Self { client, requests, name: settings.lease_name.clone(), view }
    }

    /// `None` when it does not exist.
    pub(super) async fn get(&self, limit: Duration) -> Result<Option<Record>, Failure> {
        let request = self.requests.get(&self.name, &GetParams::default());
        let answer = self.send("get", request, limit).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.record().map(Some)
    }

    /// Creates or replaces it. A replacement succeeds only if the version is the one in `object`.
    pub(super) async fn write(
        &self,
        write: &Write,
        object: &Value,
        limit: Duration,
    ) -> Result<Record, Failure> {
        let (verb, body) = (write.verb(), object.to_string().into_bytes());
        let request = match write {
            Write::Create(_) => self.requests.create(&PostParams::default(), body),
            Write::Take(_) | Write::Renew(_) | Write::Release(_) => {
                self.requests.replace(&self.name, &PostParams::default(), body)
            }
        };
        let answer = self.send(verb, request, limit).await?;
        if answer.status.is_success() { answer.record() } else { Err(Failure::Conflict) }
    }

    /// What happens to it after `version`; the last item says why the watch ended.
    pub(super) fn watch(&self, version: &str) -> BoxStream<'static, Event> {
        let parameters =
            WatchParams::default().fields(&format!("metadata.name={}", self.name)).disable_bookmarks();
        let request = self.requests.watch(&parameters, version);
        let (client, view) = (self.client.clone(), self.view.clone());
        async move {
            let lines = async { client.request_stream(request.map_err(kube::Error::BuildRequest)?).await };
            match lines.await {
                Ok(lines) => {
                    view.metrics.requested("watch", "200");
                    let watching = view.watching();
                    lines
                        .lines()
                        .map(move |line| {
                            let _while_it_lasts = &watching;
                            serde_json::from_str(&line.map_err(kube::Error::ReadEvents)?)
                                .map_err(kube::Error::SerdeError)
                        })
                        .boxed()
                }
                Err(error) => {
                    let status = match &error {
                        kube::Error::Api(status) => status.code.to_string(),
                        _ => "error".to_owned(),
                    };
                    view.metrics.requested("watch", &status);
                    stream::iter([Err(error)]).boxed()
                }
            }
        }
        .flatten_stream()
        .filter_map(|event| std::future::ready(watched(event)))
        .chain(async { Event::WatchEnded(WatchEnd::Closed) }.into_stream())
        .boxed()
    }

    async fn send(
        &self,
        verb: &'static str,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let exchange = async {
            let request = request.map_err(kube::Error::BuildRequest)?;
            let response = self.client.send(request.map(Body::from)).await?;
            let status = response.status();
            let seconds =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let bytes = response.into_body().collect_bytes().await?;
            // A refusal may come from something in between that does not speak JSON.
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let seconds = seconds.or_else(|| body["details"]["retryAfterSeconds"].as_u64());
            Ok(Answer { status, retry_after: seconds.map(Duration::from_secs), body })
        };
        match timeout(limit, exchange).await {
            Ok(Ok(answer)) if answer.is_expected(verb) => {
                self.view.answered(verb, answer.status.as_str(), Ok(()));
                Ok(answer)
            }
            Ok(Ok(Answer { status, retry_after, body })) => {
                let message = body["message"].as_str().unwrap_or_default();
                self.view.answered(verb, status.as_str(), Err(format!("{status}: {message}")));
                Err(Failure::Unavailable(retry_after))
            }
            Ok(Err::<_, kube::Error>(error)) => {
                self.view.answered(verb, "error", Err(chain(&error)));
                Err(Failure::Unavailable(None))
            }
            Err(_) => {
                self.view.answered(verb, "timeout", Err(format!("no answer within {limit:?}")));
                Err(Failure::Unavailable(None))
            }
        }
    }
}

impl Answer {
    /// Whether it says what the Lease is like; everything else is in the way of knowing that.
    fn is_expected(&self, verb: &str) -> bool {
        let missing = self.status == StatusCode::NOT_FOUND && verb != "create";
        self.status.is_success() || self.status == StatusCode::CONFLICT || missing
    }

    fn record(self) -> Result<Record, Failure> {
        Record::parse(self.body).ok_or_else(|| {
            tracing::warn!("the API server answered with a Lease that has no resourceVersion");
            Failure::Unavailable(None)
        })
    }
}

impl Write {
    fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Take(_) | Self::Renew(_) | Self::Release(_) => "update",
        }
    }
}

fn watched(event: kube::Result<WatchEvent<Value>>) -> Option<Event> {
    match event {
        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
            Record::parse(object).map(Event::Changed)
        }
        Ok(WatchEvent::Deleted(object)) => Record::parse(object).map(Event::Deleted),
        Ok(WatchEvent::Bookmark(_)) => None,
        Ok(WatchEvent::Error(status)) | Err(kube::Error::Api(status)) => {
            let end = match status.code {
                410 => WatchEnd::Expired,
                403 => WatchEnd::Forbidden,
                _ => WatchEnd::Failed,
            };
            tracing::debug!(code = status.code, message = status.message, "the watch on the lease ended");
            Some(Event::WatchEnded(end))
        }
        Err(error) => {
            tracing::debug!(%error, "the watch on the lease failed");
            Some(Event::WatchEnded(WatchEnd::Failed))
        }
    }
}

/// With its causes, which say what really happened.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
