//! What a replica knows of the Lease, and since when by its own clock.

use std::time::Duration;

use super::{
    super::{Settings, record::Record},
    Cause,
};

#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) seen: Seen,
    /// The latest version known, that of a deletion included.
    latest: String,
    /// When something was last learned.
    at: Duration,
}

#[derive(Debug, Default)]
pub(super) enum Seen {
    /// Nothing was ever learned.
    #[default]
    Nothing,
    /// There is no Lease.
    Missing {
        since: Duration,
        /// What was deleted. `None`: there never was one, as far as this replica knows.
        last: Option<Record>,
    },
    Present {
        record: Record,
        /// When this version was first received.
        since: Duration,
        /// Whether this replica saw its predecessor deleted.
        after_deletion: bool,
    },
}

impl Observed {
    /// The watch delivered a version. Returns whether it is news.
    pub(super) fn change(&mut self, now: Duration, record: Record) -> bool {
        let news = record.is_newer_than(&self.latest);
        if news {
            self.present(now, record);
        }
        news
    }

    /// The watch delivered the deletion. Returns whether it is news.
    pub(super) fn delete(&mut self, now: Duration, record: Record) -> bool {
        let news = record.is_newer_than(&self.latest);
        if news {
            record.resource_version().clone_into(&mut self.latest);
            self.missing(now, Some(record));
        }
        news
    }

    /// Something may have happened that this replica was not told: the absence of a Lease that was seen counts from now.
    /// Returns whether it is absent.
    pub(super) fn lose_sight(&mut self, now: Duration) -> bool {
        let Seen::Missing { since, last: Some(_) } = &mut self.seen else { return false };
        *since = now;
        true
    }

    /// A GET, which is never answered from a cache, returned this. Returns whether it is news. An older version than the
    /// latest known is the truth only if the GET was sent after that was learned: then the cluster was restored.
    pub(super) fn read(&mut self, now: Duration, sent: Duration, found: Option<Record>) -> bool {
        match found {
            Some(record) => {
                let known = record.resource_version() == self.latest;
                let stale = !record.is_newer_than(&self.latest) && sent < self.at;
                let missing = matches!(self.seen, Seen::Missing { .. });
                if stale || (known && !missing) {
                    return false;
                }
                self.present(now, record);
                true
            }
            None if sent < self.at => false,
            None => {
                if matches!(self.seen, Seen::Missing { .. }) {
                    return false;
                }
                self.missing(now, None);
                true
            }
        }
    }

    /// An own write returned this. Returns whether it is the latest version known.
    pub(super) fn wrote(&mut self, now: Duration, record: Record) -> bool {
        if self.latest == record.resource_version() {
            return matches!(self.seen, Seen::Present { .. });
        }
        self.change(now, record)
    }

    /// From which version to watch. What is missing has none: the watch begins with what is there by then.
    pub(super) fn watch_from(&self) -> &str {
        match &self.seen {
            Seen::Present { record, .. } => record.resource_version(),
            Seen::Nothing | Seen::Missing { .. } => "",
        }
    }

    /// When the lease becomes free unless it changes, why, and whether nobody else would want it at that moment.
    pub(super) fn free(&self, settings: &Settings) -> Option<(Duration, Cause, bool)> {
        match &self.seen {
            Seen::Nothing => None,
            Seen::Missing { since, last: None } => Some((*since, Cause::Created, true)),
            // Its leader, who may not know yet, leads on for no longer than this. It need not be the one last seen, so
            // that a released record says nothing.
            Seen::Missing { since, last: Some(last) } => {
                Some((*since + duration(last, settings).max(settings.lease_duration), Cause::Created, false))
            }
            Seen::Present { record, since, .. } => Some(match record.holder() {
                "" => (*since, Cause::Released, false),
                holder if settings.identity.is_same_pod(holder) => (*since, Cause::SamePod, true),
                _ => (*since + duration(record, settings), Cause::Expired, false),
            }),
        }
    }

    fn present(&mut self, now: Duration, record: Record) {
        record.resource_version().clone_into(&mut self.latest);
        self.at = now;
        let after_deletion = matches!(self.seen, Seen::Missing { .. });
        self.seen = Seen::Present { record, since: now, after_deletion };
    }

    fn missing(&mut self, now: Duration, deleted: Option<Record>) {
        self.at = now;
        let last = match std::mem::take(&mut self.seen) {
            Seen::Present { record, .. } => Some(record),
            Seen::Missing { last, .. } => deleted.or(last),
            Seen::Nothing => deleted,
        };
        self.seen = Seen::Missing { since: now, last };
    }
}

/// By the record's own word; one without a word counts as ours.
fn duration(record: &Record, settings: &Settings) -> Duration {
    record.duration().unwrap_or(settings.lease_duration)
}
