//! The calling side.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message as _;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::bytes::Bytes;

use super::{Code, Failure, Kind, Message};
use crate::{
    proto::ttrpc::{Request, Response},
    wire::mux::Writer,
};

/// Calls methods of the other side. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    connection: u32,
    writer: Writer,
    waiting: Arc<Mutex<Waiting>>,
}

/// The end of a [`Client`] that is given the responses. When it is dropped, all calls fail.
#[derive(Debug)]
pub(crate) struct Replies(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<u32, oneshot::Sender<Result<Bytes, Failure>>>,
    last: u32,
    closed: bool,
}

/// Forgets a call whose caller does not wait any longer.
struct Entered<'a> {
    waiting: &'a Mutex<Waiting>,
    stream: u32,
}

impl Client {
    pub(crate) fn new(connection: u32, writer: Writer) -> (Self, Replies) {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        (Self { connection, writer, waiting: waiting.clone() }, Replies(waiting))
    }

    /// Calls a method, and waits no longer than that for its response.
    pub(crate) async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        patience: Duration,
    ) -> Result<Bytes, Failure> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: payload.into(),
            timeout_nano: i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX),
        };
        let (entered, reply) = self.enter()?;
        let payload = request.encode_to_vec().into();
        let message = Message { stream: entered.stream, kind: Kind::Request, payload };
        let exchange = async {
            self.writer.send(self.connection, message).await.map_err(|_| closed())?;
            reply.await.unwrap_or_else(|_| Err(closed()))
        };
        let late = |_| Failure::new(Code::DeadlineExceeded, format!("{method} was not answered in time"));
        timeout(patience, exchange).await.map_err(late)?
    }

    fn enter(&self) -> Result<(Entered<'_>, oneshot::Receiver<Result<Bytes, Failure>>), Failure> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = locked(&self.waiting);
        if waiting.closed {
            return Err(closed());
        }
        // Odd numbers are the client's.
        waiting.last = if waiting.last == 0 { 1 } else { waiting.last.wrapping_add(2) };
        let stream = waiting.last;
        waiting.calls.insert(stream, sender);
        Ok((Entered { waiting: &self.waiting, stream }, receiver))
    }
}

impl Replies {
    /// Takes a response; one that nobody waits for is dropped.
    pub(crate) fn take(&self, stream: u32, payload: Bytes) {
        let reply = match Response::decode(payload) {
            Ok(Response { status: Some(status), .. }) if status.code != 0 => Err(status.into()),
            Ok(Response { payload, .. }) => Ok(payload),
            Err(_) => Err(Failure::new(Code::Internal, "the response is no ttrpc response")),
        };
        self.give(stream, reply);
    }

    /// A response was longer than what is accepted.
    pub(crate) fn too_long(&self, stream: u32, length: usize) {
        let message = format!("the response of {length} bytes is too long");
        self.give(stream, Err(Failure::new(Code::ResourceExhausted, message)));
    }

    fn give(&self, stream: u32, reply: Result<Bytes, Failure>) {
        if let Some(caller) = locked(&self.0).calls.remove(&stream) {
            // Who has gone needs no reply.
            let _ = caller.send(reply);
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let mut waiting = locked(&self.0);
        waiting.closed = true;
        waiting.calls.clear();
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        locked(self.waiting).calls.remove(&self.stream);
    }
}

fn closed() -> Failure {
    Failure::new(Code::Unavailable, "the connection is closed")
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
