//! The side that is called.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::bytes::Bytes;

use super::{Code, Failure, Kind, MAX_SENT, Message};
use crate::{
    proto::ttrpc::{Request, Response},
    wire::mux::Writer,
};

/// No caller waits longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is served.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers a call. A panic is answered with an error, and so is a call that takes too long, whose future is then dropped.
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, Failure>> + Send;

    /// Takes note that an answer has been handed over to be sent.
    fn answered(&self, answered: Answered<'_>);
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) payload: Bytes,
    pub(crate) arrived: Instant,
    /// How long the caller waits from then on.
    pub(crate) timeout: Duration,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    /// Empty where there was no telling.
    pub(crate) method: &'a str,
    pub(crate) failure: Option<&'a Failure>,
    pub(crate) took: Duration,
    /// Whether the caller has stopped waiting.
    pub(crate) late: bool,
}

/// Serves one connection. Dropping it drops the requests under way.
#[derive(Debug)]
pub(crate) struct Server<S> {
    answerer: Arc<Answerer<S>>,
    requests: JoinSet<()>,
    default_timeout: Duration,
    closing: bool,
}

#[derive(Debug)]
struct Answerer<S> {
    service: Arc<S>,
    connection: u32,
    writer: Writer,
}

impl<S: Service> Server<S> {
    /// With the time that callers wait when they do not say.
    pub(crate) fn new(connection: u32, writer: Writer, service: Arc<S>, default_timeout: Duration) -> Self {
        let answerer = Arc::new(Answerer { service, connection, writer });
        Self { answerer, requests: JoinSet::new(), default_timeout, closing: false }
    }

    /// Begins to work on a request.
    pub(crate) fn take(&mut self, stream: u32, payload: Bytes) {
        let arrived = Instant::now();
        let Ok(request) = Request::decode(payload) else {
            let failure = Failure::new(Code::InvalidArgument, "the request is no ttrpc request");
            return self.refuse(stream, failure);
        };
        let Request { service, method, payload, timeout_nano } = request;
        let timeout = match u64::try_from(timeout_nano) {
            Ok(0) | Err(_) => self.default_timeout,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds).min(LONGEST),
        };
        let call = Call { service, method, payload, arrived, timeout };
        let answerer = self.answerer.clone();
        if self.closing {
            let failure = Failure::new(Code::Unavailable, "the plugin is shutting down");
            self.requests.spawn(async move { answerer.answer(stream, &call, Err(failure)).await });
        } else {
            self.requests.spawn(async move {
                let result = answerer.work(&call).await;
                answerer.answer(stream, &call, result).await;
            });
        }
    }

    /// A request was longer than what is accepted.
    pub(crate) fn too_long(&mut self, stream: u32, length: usize) {
        let message = format!("the request of {length} bytes is too long");
        self.refuse(stream, Failure::new(Code::ResourceExhausted, message));
    }

    fn refuse(&mut self, stream: u32, failure: Failure) {
        let call = Call {
            service: String::new(),
            method: String::new(),
            payload: Bytes::new(),
            arrived: Instant::now(),
            timeout: self.default_timeout,
        };
        let answerer = self.answerer.clone();
        self.requests.spawn(async move { answerer.answer(stream, &call, Err(failure)).await });
    }

    /// Refuses requests from now on.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether all requests have been answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Waits until a request has been answered; `None` when there is none.
    pub(crate) async fn reap(&mut self) -> Option<()> {
        self.requests.join_next().await.map(|_| ())
    }
}

impl<S: Service> Answerer<S> {
    /// In a task of its own, so that a panic, and a handler that blocks its thread, are known here.
    async fn work(&self, call: &Call) -> Result<Vec<u8>, Failure> {
        let deadline = call.arrived + call.timeout.mul_f64(0.85);
        let mut work = JoinSet::new();
        let (service, request) = (self.service.clone(), call.clone());
        work.spawn(async move { service.call(request).await });
        match timeout_at(deadline, work.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(_) => Err(Failure::new(Code::Internal, "the plugin failed unexpectedly")),
            Err(_) => Err(Failure::new(Code::DeadlineExceeded, "the plugin had no answer in time")),
        }
    }

    async fn answer(&self, stream: u32, call: &Call, result: Result<Vec<u8>, Failure>) {
        let (payload, failure) = encode(result);
        let message = Message { stream, kind: Kind::Response, payload };
        // Where the connection has ended, its reader knows.
        let _ = self.writer.send(self.connection, message).await;
        let took = call.arrived.elapsed();
        let late = took >= call.timeout;
        self.service.answered(Answered { method: &call.method, failure: failure.as_ref(), took, late });
    }
}

/// What cannot be sent becomes an error: the runtime would go on without the plugin.
fn encode(result: Result<Vec<u8>, Failure>) -> (Bytes, Option<Failure>) {
    let failure = match result {
        Ok(payload) => {
            let response = Response { status: None, payload: payload.into() };
            let length = response.encoded_len();
            if length <= MAX_SENT {
                return (response.encode_to_vec().into(), None);
            }
            Failure::new(
                Code::ResourceExhausted,
                format!("the plugin's answer of {length} bytes is too long for NRI"),
            )
        }
        Err(failure) => failure,
    };
    let response = Response { status: Some(failure.clone().into()), payload: Bytes::new() };
    (response.encode_to_vec().into(), Some(failure))
}

#[cfg(test)]
mod tests;
