//! What a history may do to its replicas.

use super::Fault;

#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// The rate of the slowest clock; the fastest runs at 1.
    pub(super) slowest: f64,
    /// Whether every clock runs at one end of the range.
    pub(super) extreme: bool,
    /// Cuts, pauses, crashes and shutdowns for each replica, at most.
    pub(super) faults: u32,
    /// How probable it is that a message is late, and that an answer takes almost all the time a request may take.
    pub(super) late: f64,
    pub(super) slow_answer: f64,
    /// How probable it is that a leader is cut off right after a renewal was acknowledged.
    pub(super) cut_after_renewal: f64,
    pub(super) deletions: bool,
    /// How often each replica gets other leases or loses them, and how often it is asked to yield.
    pub(super) loads: u32,
    /// How probable it is that the work of a term fails.
    pub(super) work_fails: f64,
    /// The leader crashes once, and is waited for.
    pub(super) one_crash: bool,
    pub(super) fault: Option<Fault>,
}

impl Profile {
    /// Everything at once.
    pub(super) fn rough() -> Self {
        Self {
            slowest: 1.0 / 1.45,
            extreme: false,
            faults: 6,
            late: 0.2,
            slow_answer: 0.02,
            cut_after_renewal: 0.0,
            deletions: true,
            loads: 4,
            work_fails: 0.3,
            one_crash: false,
            fault: None,
        }
    }

    /// As near to the bounds as can be.
    pub(super) fn harsh() -> Self {
        Self {
            extreme: true,
            faults: 2,
            slow_answer: 0.5,
            cut_after_renewal: 0.05,
            deletions: false,
            ..Self::rough()
        }
    }

    /// Nothing but one crash.
    pub(super) fn benign() -> Self {
        Self {
            slowest: 1.0,
            extreme: false,
            faults: 0,
            late: 0.0,
            slow_answer: 0.0,
            cut_after_renewal: 0.0,
            deletions: false,
            loads: 0,
            work_fails: 0.0,
            one_crash: true,
            fault: None,
        }
    }
}
