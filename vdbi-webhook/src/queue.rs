//! How many admissions are under way, and how many wait.

use metrics::Gauge;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets a bounded number in, and a bounded number wait. Whoever comes beyond that is told so at once, rather than after the
/// time that it would have waited in vain.
#[derive(Debug)]
pub(crate) struct Queue {
    active: Semaphore,
    waiting: Semaphore,
    in_flight: Gauge,
    queued: Gauge,
}

/// The right to work; returned when dropped.
pub(crate) struct Permit<'a> {
    _permit: SemaphorePermit<'a>,
    _in_flight: Counted<'a>,
}

/// There is no room to wait in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Queue {
    pub(crate) fn new(max_in_flight: usize, max_queued: usize, in_flight: Gauge, queued: Gauge) -> Self {
        let semaphore = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Self { active: semaphore(max_in_flight), waiting: semaphore(max_queued), in_flight, queued }
    }

    /// Waits for its turn, first come, first served.
    pub(crate) async fn enter(&self) -> Result<Permit<'_>, Full> {
        let permit = match self.active.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _place = self.waiting.try_acquire().map_err(|_| Full)?;
                let _queued = Counted::new(&self.queued);
                // Nobody closes it.
                self.active.acquire().await.map_err(|_| Full)?
            }
        };
        Ok(Permit { _permit: permit, _in_flight: Counted::new(&self.in_flight) })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::join};

    use super::*;

    #[tokio::test]
    async fn beyond_the_waiting_room_the_answer_is_immediate() {
        let queue = Queue::new(1, 1, Gauge::noop(), Gauge::noop());
        let first = queue.enter().await.unwrap();
        let mut second = std::pin::pin!(queue.enter());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(queue.enter().await.err(), Some(Full));
        drop(first);
        drop(second.await.unwrap());
        assert!(queue.enter().await.is_ok());
    }

    #[tokio::test]
    async fn whoever_stops_waiting_makes_room() {
        let queue = Queue::new(1, 1, Gauge::noop(), Gauge::noop());
        let first = queue.enter().await.unwrap();
        assert!(queue.enter().now_or_never().is_none());
        let (second, ()) = join(queue.enter(), async { drop(first) }).await;
        assert!(second.is_ok());
    }
}
