//! A thread of its own that notices work which does not stop: the runtime cannot be trusted to, since such work may be
//! what blocks it.

use std::{
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use vdbi_core::clock::Clock;

/// How long to wait at most before looking at the clock: it goes on during a suspension, waiting does not.
const LOOK: Duration = Duration::from_millis(500);

/// Called once for each term whose work overran.
pub(super) type Callback = Arc<dyn Fn() + Send + Sync>;

/// The thread, which ends when this is dropped.
pub(super) struct Overrun(Arc<Shared>);

#[derive(Default)]
struct Shared {
    order: Mutex<Order>,
    changed: Condvar,
}

#[derive(Default)]
struct Order {
    /// When to call, on the clock.
    at: Option<Duration>,
    over: bool,
}

impl Overrun {
    pub(super) fn start(clock: Arc<dyn Clock>, callback: Callback) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = shared.clone();
        thread::Builder::new()
            .name("vdbi-overrun".into())
            .spawn(move || watched.watch(&*clock, &*callback))?;
        Ok(Self(shared))
    }

    /// Calls at that time, unless told otherwise before.
    pub(super) fn arm(&self, at: Duration) {
        self.0.lock().at = Some(at);
        self.0.changed.notify_one();
    }

    /// The work has stopped.
    pub(super) fn disarm(&self) {
        self.0.lock().at = None;
    }
}

impl Drop for Overrun {
    fn drop(&mut self) {
        let mut order = self.0.lock();
        order.at = None;
        order.over = true;
        self.0.changed.notify_one();
    }
}

impl fmt::Debug for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overrun").field("at", &self.0.lock().at).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, clock: &dyn Clock, callback: &(dyn Fn() + Send + Sync)) {
        let mut order = self.lock();
        while !order.over {
            order = match order.at {
                None => self.changed.wait(order).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_sub(clock.now());
                    if left.is_zero() {
                        order.at = None;
                        drop(order);
                        callback();
                        self.lock()
                    } else {
                        let waited = self.changed.wait_timeout(order, left.min(LOOK));
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    use super::*;

    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    fn overrun() -> (Arc<Seconds>, Overrun, mpsc::Receiver<()>) {
        let clock = Arc::new(Seconds::default());
        let (sender, receiver) = mpsc::channel();
        let callback = Arc::new(move || sender.send(()).unwrap_or_default());
        (clock.clone(), Overrun::start(clock, callback).unwrap(), receiver)
    }

    #[test]
    fn work_that_overruns_is_noticed_once() {
        let (clock, overrun, called) = overrun();
        overrun.arm(Duration::from_secs(13));
        clock.0.store(13, Ordering::SeqCst);
        called.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(overrun.0.lock().at, None);
    }

    #[test]
    fn the_thread_ends_without_a_call_when_it_is_dropped() {
        let (clock, overrun, called) = overrun();
        overrun.arm(Duration::from_secs(13));
        drop(overrun);
        clock.0.store(13, Ordering::SeqCst);
        // The sender goes with the thread.
        assert_eq!(called.recv_timeout(Duration::from_secs(20)), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn work_that_stopped_is_left_alone() {
        let (clock, overrun, called) = overrun();
        overrun.arm(Duration::from_secs(13));
        overrun.disarm();
        clock.0.store(13, Ordering::SeqCst);
        overrun.0.changed.notify_one();
        drop(overrun);
        assert_eq!(called.recv_timeout(Duration::from_secs(20)), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
