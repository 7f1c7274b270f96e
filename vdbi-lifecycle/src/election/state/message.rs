//! What the machine is told, and what it tells to do.

use std::time::Duration;

use super::super::record::{Record, Write};

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Time has passed; the first event of all.
    Tick,
    /// The answer to the GET with this number. `None`: there is no such Lease.
    Read(u64, Result<Option<Record>, Failure>),
    /// The answer to the write with this number.
    Written(u64, Result<Record, Failure>),
    /// The watch saw a version.
    Changed(Record),
    /// The watch saw the deletion.
    Deleted(Record),
    /// The watch ended.
    WatchEnded(WatchEnd),
    /// The work returned, failed, panicked or was dropped: it does nothing any more.
    WorkEnded,
    /// Another replica is to lead.
    Yield,
    /// The process is to end.
    Shutdown,
}

/// Why a request did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another write came first, or the object went away.
    Conflict,
    /// Anything else, an answer lost after the write was committed included; with what the server asked to wait.
    Unavailable(Option<Duration>),
}

/// Why the watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// In its time.
    Closed,
    /// Its version is too old.
    Expired,
    /// It does not work.
    Failed,
    /// It is not permitted.
    Forbidden,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Read the Lease; the answer carries the number. A new request replaces the one under way.
    Get { id: u64, timeout: Duration },
    /// Write it.
    Write { id: u64, write: Write, timeout: Duration },
    /// Watch from this version on, instead of any other watch. Empty: from now.
    Watch(String),
    /// Leadership is won: start the work.
    Start { cause: Cause, fence: String, sent: Duration },
    /// The lease was renewed by a write sent then.
    Extend { sent: Duration },
    /// The term is over. After a shutdown the work may finish what it has begun, as long as the lease is renewed.
    End(Reason),
    /// The term stands, and the work is to finish what it has begun and to return.
    WindDown,
    /// The lease is somebody else's while the work finishes: it has to stop at once.
    Cut,
    /// The work has not returned in time.
    Drop,
    /// The end. `Err`: the work did not return; nothing was released.
    Stop(Result<(), Duration>),
}

/// Why the lease was free; the order is that of [`Cause::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Created,
    Released,
    Expired,
    SamePod,
}

/// Why a term ended; the order is that of [`Reason::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Deadline,
    Superseded,
    Deleted,
    WorkFailed,
    Yielded,
    Shutdown,
}

impl Cause {
    pub(crate) const ALL: [Self; 4] = [Self::Created, Self::Released, Self::Expired, Self::SamePod];

    /// As the metrics' label has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::SamePod => "same_pod",
        }
    }
}

impl Reason {
    pub(crate) const ALL: [Self; 6] =
        [Self::Deadline, Self::Superseded, Self::Deleted, Self::WorkFailed, Self::Yielded, Self::Shutdown];

    /// As the metrics' label has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Superseded => "superseded",
            Self::Deleted => "deleted",
            Self::WorkFailed => "work_failed",
            Self::Yielded => "yielded",
            Self::Shutdown => "shutdown",
        }
    }
}
