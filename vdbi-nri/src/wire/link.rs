//! Both sides' calls over one socket.

use std::{io, sync::Arc, time::Duration};

use futures::StreamExt;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, split},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

use super::{
    mux::{self, Frame, Frames, MuxError},
    ttrpc::{Client, Incoming, Kind, MAX_RECEIVED, Message, Messages, Replies, Server, Service},
};

/// How long the last answers may take to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Who this side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It serves the first connection and calls on the second.
    Plugin,
    /// The other way round.
    #[cfg(any(test, feature = "testing"))]
    Runtime,
}

/// A socket with a server and a client on it. Dropping it closes all of them at once.
#[derive(Debug)]
pub(crate) struct Link<IO, S> {
    frames: FramedRead<ReadHalf<IO>, Frames>,
    served: u32,
    called: u32,
    requests: Messages,
    responses: Messages,
    server: Server<S>,
    client: Client,
    replies: Replies,
    /// The one task that writes.
    writing: JoinSet<io::Result<()>>,
    finish: CancellationToken,
}

/// The socket is of no more use.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("the other side closed the connection")]
    Closed,
    #[error("reading failed: {0}")]
    Read(#[source] MuxError),
    #[error("writing failed: {0}")]
    Write(#[source] io::Error),
    #[error("the task that writes ended")]
    WriterEnded,
    #[error("the other side does not read")]
    Stuck,
}

impl<IO, S> Link<IO, S>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
    S: Service,
{
    /// Serves from the start: the other side may call before it has answered anything.
    pub(crate) fn new(io: IO, role: Role, service: Arc<S>, default_timeout: Duration) -> Self {
        let (served, called) = match role {
            Role::Plugin => (mux::PLUGIN, mux::RUNTIME),
            #[cfg(any(test, feature = "testing"))]
            Role::Runtime => (mux::RUNTIME, mux::PLUGIN),
        };
        let (reader, stream) = split(io);
        let finish = CancellationToken::new();
        let (writer, write) = mux::writer(stream, finish.clone());
        let mut writing = JoinSet::new();
        writing.spawn(write);
        let (client, replies) = Client::new(called, writer.clone());
        Self {
            frames: FramedRead::new(reader, Frames),
            served,
            called,
            requests: Messages::new(MAX_RECEIVED),
            responses: Messages::new(MAX_RECEIVED),
            server: Server::new(served, writer, service, default_timeout),
            client,
            replies,
            writing,
            finish,
        }
    }

    /// To call the other side; it is answered only while [`turn`](Self::turn) is awaited.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Does the next thing there is to do. May be dropped at any await.
    pub(crate) async fn turn(&mut self) -> Result<(), LinkError> {
        tokio::select! {
            frame = self.frames.next() => match frame {
                Some(Ok(frame)) => self.take(frame),
                Some(Err(MuxError::Io(error))) if is_closed(&error) => return Err(LinkError::Closed),
                Some(Err(error)) => return Err(LinkError::Read(error)),
                None => return Err(LinkError::Closed),
            },
            Some(()) = self.server.reap() => {}
            ended = self.writing.join_next() => return Err(match ended {
                Some(Ok(Err(error))) if is_closed(&error) => LinkError::Closed,
                Some(Ok(Err(error))) => LinkError::Write(error),
                _ => LinkError::WriterEnded,
            }),
        }
        Ok(())
    }

    /// Refuses new requests, finishes those under way, and closes the socket.
    pub(crate) async fn finish(mut self) -> Result<(), LinkError> {
        self.server.close();
        while !self.server.is_idle() {
            self.turn().await?;
        }
        self.finish.cancel();
        match timeout(FLUSH, self.writing.join_next()).await {
            Ok(Some(Ok(Err(error)))) => Err(LinkError::Write(error)),
            Ok(_) => Ok(()),
            Err(_) => Err(LinkError::Stuck),
        }
    }

    /// Other connections than the two are none of ours.
    fn take(&mut self, Frame { connection, payload }: Frame) {
        if connection == self.served {
            self.requests.extend(payload);
            while let Some(incoming) = self.requests.next() {
                match incoming {
                    Incoming::Message(Message { stream, kind: Kind::Request, payload }) => {
                        self.server.take(stream, payload);
                    }
                    Incoming::TooLong { stream, kind: Kind::Request, length } => {
                        self.server.too_long(stream, length);
                    }
                    Incoming::Message(_) | Incoming::TooLong { .. } => {}
                }
            }
        } else if connection == self.called {
            self.responses.extend(payload);
            while let Some(incoming) = self.responses.next() {
                match incoming {
                    Incoming::Message(Message { stream, kind: Kind::Response, payload }) => {
                        self.replies.take(stream, payload);
                    }
                    Incoming::TooLong { stream, kind: Kind::Response, length } => {
                        self.replies.too_long(stream, length);
                    }
                    Incoming::Message(_) | Incoming::TooLong { .. } => {}
                }
            }
        }
    }
}

/// A socket whose other end is gone says so in more than one way.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}
