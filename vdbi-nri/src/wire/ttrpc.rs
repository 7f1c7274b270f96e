//! Calls over a connection: messages of a header and a payload, of which a request is answered by the response with its number.

mod client;
mod failure;
mod message;
mod server;

pub(crate) use client::{Client, Replies};
pub(crate) use failure::{Code, Failure};
pub(crate) use message::{HEADER, Incoming, Kind, MAX_RECEIVED, MAX_SENT, Message, Messages};
pub(crate) use server::{Answered, Call, Server, Service};
