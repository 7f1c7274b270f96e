//! Several connections over one byte stream, in frames: the connection's number, the payload's length, the payload.

use std::io;

use thiserror::Error;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::{
    bytes::{Buf, BytesMut},
    codec::Decoder,
    sync::CancellationToken,
};

use super::ttrpc::{HEADER, Message};

/// The connection on which the runtime calls the plugin.
pub(crate) const PLUGIN: u32 = 1;

/// The connection on which the plugin calls the runtime.
pub(crate) const RUNTIME: u32 = 2;

/// The largest payload of a frame: a whole ttrpc message. containerd 1.7.24 sends one of 5 MB in a single frame.
pub(crate) const MAX_PAYLOAD: usize = HEADER + super::ttrpc::MAX_RECEIVED;

const FRAME_HEADER: usize = 8;

/// How many messages wait for the socket before whoever answers has to wait.
const QUEUE: usize = 64;

/// A piece of one connection's byte stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) connection: u32,
    pub(crate) payload: BytesMut,
}

/// Takes a byte stream apart into frames.
#[derive(Debug)]
pub(crate) struct Frames;

/// The byte stream is none of NRI's.
#[derive(Debug, Error)]
pub(crate) enum MuxError {
    #[error("a frame of {0} bytes is larger than NRI allows")]
    TooLarge(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Decoder for Frames {
    type Item = Frame;
    type Error = MuxError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, MuxError> {
        let Some(mut header) = bytes.get(..FRAME_HEADER) else { return Ok(None) };
        let connection = header.get_u32();
        let length = header.get_u32() as usize;
        if length > MAX_PAYLOAD {
            return Err(MuxError::TooLarge(length));
        }
        if bytes.len() < FRAME_HEADER + length {
            bytes.reserve(FRAME_HEADER + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(FRAME_HEADER);
        Ok(Some(Frame { connection, payload: bytes.split_to(length) }))
    }

    /// Half a frame at the end is what a runtime leaves that is killed.
    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, MuxError> {
        self.decode(bytes)
    }
}

/// Where messages are handed over to the one task that writes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Writer(mpsc::Sender<(u32, Message)>);

/// Nothing is written any more.
#[derive(Debug, Error)]
#[error("the connection is closed")]
pub(crate) struct Closed;

impl Writer {
    /// Hands a message over, and waits while too many are under way.
    pub(crate) async fn send(&self, connection: u32, message: Message) -> Result<(), Closed> {
        self.0.send((connection, message)).await.map_err(|_| Closed)
    }
}

/// A writer, and the task that writes: until `finish`, and then what has been handed over by then. It ends by closing the stream.
pub(crate) fn writer<W: AsyncWrite + Unpin>(
    stream: W,
    finish: CancellationToken,
) -> (Writer, impl Future<Output = io::Result<()>>) {
    let (sender, messages) = mpsc::channel(QUEUE);
    (Writer(sender), write(stream, messages, finish))
}

async fn write<W: AsyncWrite + Unpin>(
    mut stream: W,
    mut messages: mpsc::Receiver<(u32, Message)>,
    finish: CancellationToken,
) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            next = messages.recv() => next,
            () = finish.cancelled(), if !messages.is_closed() => {
                messages.close();
                continue;
            }
        };
        let Some((connection, message)) = next else { break };
        stream.write_all(&heads(connection, &message)).await?;
        stream.write_all(&message.payload).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

/// What comes before a message's payload: its header in a frame of its own, and the head of the payload's frame.
///
/// The other side, written in Go, drops the connection when a frame is larger than what it happens to read into: 4096 bytes, unless it
/// waits for a payload of which it knows the length. So a payload is one frame and nothing else is in that frame. It also drops
/// the connection when a message comes in too many frames.
fn heads(connection: u32, message: &Message) -> Vec<u8> {
    let mut heads = Vec::with_capacity(2 * FRAME_HEADER + HEADER);
    let mut head = |length: usize, bytes: &[u8]| {
        heads.extend_from_slice(&connection.to_be_bytes());
        heads.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        heads.extend_from_slice(bytes);
    };
    head(HEADER, &message.header());
    if !message.payload.is_empty() {
        head(message.payload.len(), &[]);
    }
    heads
}

#[cfg(test)]
mod tests;
