//! Messages in a connection's byte stream.

use tokio_util::bytes::{Buf, Bytes, BytesMut};

/// The length of a message's header: the payload's length, the stream's number, the kind, flags.
pub(crate) const HEADER: usize = 10;

/// The longest payload that the other side accepts.
pub(crate) const MAX_SENT: usize = 4 << 20;

/// The longest payload that is accepted here. containerd 1.7 sends all pods and containers of the node in one message, whatever its
/// length, and forgets a plugin that does not take it.
pub(crate) const MAX_RECEIVED: usize = 64 << 20;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// Part of a stream, or something newer: none of it is in NRI.
    Other(u8),
}

/// A message of a unary call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Pairs a response with its request.
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Message(Message),
    /// A message that was too long and is skipped.
    TooLong {
        stream: u32,
        kind: Kind,
        length: usize,
    },
}

/// Takes a connection's byte stream apart into messages. Whatever the bytes, they are messages.
#[derive(Debug)]
pub(crate) struct Messages {
    limit: usize,
    bytes: BytesMut,
    /// What is left of a message that was too long.
    skip: usize,
}

impl Message {
    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        header[4..8].copy_from_slice(&self.stream.to_be_bytes());
        header[8] = self.kind.number();
        header
    }
}

impl Messages {
    /// With the longest payload to take.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: BytesMut::new(), skip: 0 }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn extend(&mut self, mut bytes: BytesMut) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes.advance(skipped);
        if self.bytes.is_empty() {
            self.bytes = bytes;
        } else {
            self.bytes.extend_from_slice(&bytes);
        }
    }

    /// The next message that is there as a whole.
    pub(crate) fn next(&mut self) -> Option<Incoming> {
        let mut header = self.bytes.get(..HEADER)?;
        let length = header.get_u32() as usize;
        let stream = header.get_u32();
        let kind = Kind::of(header.get_u8());
        if length > self.limit {
            self.bytes.advance(HEADER);
            let skipped = length.min(self.bytes.len());
            self.bytes.advance(skipped);
            self.skip = length - skipped;
            return Some(Incoming::TooLong { stream, kind, length });
        }
        if self.bytes.len() < HEADER + length {
            return None;
        }
        self.bytes.advance(HEADER);
        let payload = self.bytes.split_to(length).freeze();
        if self.bytes.is_empty() {
            // Else what is left, which is nothing, keeps the whole message's memory.
            self.bytes = BytesMut::new();
        }
        Some(Incoming::Message(Message { stream, kind, payload }))
    }
}

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Other(other) => other,
        }
    }
}

#[cfg(test)]
mod tests;
