//! Gauges of a process in which several terms run at once, one for each shard that it leads: they show all together.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::shard::Shard;

/// What one term tells of itself.
pub(crate) trait Figures: Default + Send + 'static {
    /// Adds what another term tells.
    fn add(&mut self, other: &Self);
}

/// The figures of the terms that run. Clones share them.
pub(crate) struct Tally<T>(Arc<Shared<T>>);

struct Shared<T> {
    parts: Mutex<BTreeMap<Shard, T>>,
    show: Box<dyn Fn(&T) + Send + Sync>,
}

/// A term's figures count while this exists.
#[derive(Debug)]
pub(crate) struct Counted<T: Figures>(Tally<T>, Shard);

impl Figures for usize {
    fn add(&mut self, other: &Self) {
        *self += other;
    }
}

impl<T: Figures> Tally<T> {
    /// Nothing runs yet; `show` gets the total whenever it changes, and now.
    pub(crate) fn new(show: impl Fn(&T) + Send + Sync + 'static) -> Self {
        let tally = Self(Arc::new(Shared { parts: Mutex::default(), show: Box::new(show) }));
        tally.show(&tally.parts());
        tally
    }

    /// A term of this shard begins.
    #[must_use = "it counts while this exists"]
    pub(crate) fn count(&self, shard: Shard) -> Counted<T> {
        self.parts().insert(shard, T::default());
        Counted(self.clone(), shard)
    }

    /// Changes the figures of a term; nothing once it has ended.
    pub(crate) fn tell(&self, shard: Shard, change: impl FnOnce(&mut T)) {
        let mut parts = self.parts();
        if let Some(part) = parts.get_mut(&shard) {
            change(part);
            self.show(&parts);
        }
    }

    fn show(&self, parts: &BTreeMap<Shard, T>) {
        let mut total = T::default();
        parts.values().for_each(|part| total.add(part));
        (self.0.show)(&total);
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<Shard, T>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Tally<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Tally<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tally")
    }
}

impl<T: Figures> Drop for Counted<T> {
    fn drop(&mut self) {
        let Self(tally, shard) = self;
        let mut parts = tally.parts();
        parts.remove(shard);
        tally.show(&parts);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn terms_add_up_while_they_run_and_leave_nothing_behind() {
        let shown = Arc::new(AtomicUsize::new(7));
        let gauge = shown.clone();
        let tally = Tally::new(move |total: &usize| gauge.store(*total, Ordering::SeqCst));
        let shown = || shown.load(Ordering::SeqCst);
        assert_eq!(shown(), 0, "shown from the start");
        let shards: Vec<_> = Shard::all(2).collect();
        let [first, second] = [tally.count(shards[0]), tally.count(shards[1])];
        tally.tell(shards[0], |part| *part = 3);
        tally.tell(shards[1], |part| *part = 4);
        assert_eq!(shown(), 7);
        tally.tell(shards[0], |part| *part = 1);
        assert_eq!(shown(), 5);
        drop(first);
        tally.tell(shards[0], |part| *part = 9);
        assert_eq!(shown(), 4, "what a term's last task tells after its end does not count");
        drop(second);
        assert_eq!(shown(), 0);
    }
}
