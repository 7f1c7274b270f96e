//! How many leases a process holds, of several elections that run in it: the more, the later it takes another one.

use tokio::sync::watch;

/// Shared by the elections of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct Load(watch::Sender<u32>);

/// One election's part in it, until it is dropped.
#[derive(Debug)]
pub(super) struct Engagement {
    load: Load,
    changes: watch::Receiver<u32>,
    engaged: bool,
}

impl Load {
    pub(super) fn join(&self) -> Engagement {
        Engagement { load: self.clone(), changes: self.0.subscribe(), engaged: false }
    }
}

impl Engagement {
    /// Says whether this election holds its lease or is about to.
    pub(super) fn set(&mut self, engaged: bool) {
        if self.engaged != engaged {
            self.engaged = engaged;
            self.load.0.send_modify(|load| if engaged { *load += 1 } else { *load -= 1 });
        }
    }

    /// How many of the others do.
    pub(super) fn others(&mut self) -> u32 {
        *self.changes.borrow_and_update() - u32::from(self.engaged)
    }

    /// Resolves when [`others`](Self::others) may have changed since it was asked.
    pub(super) async fn changed(&mut self) {
        // The sender is in `load`, so that it cannot have gone.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Engagement {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_counts_the_others_and_hears_of_changes() {
        let load = Load::default();
        let (mut a, mut b) = (load.join(), load.join());
        a.set(true);
        a.set(true);
        assert_eq!((a.others(), b.others()), (0, 1));
        assert!(b.changed().now_or_never().is_none());
        drop(a);
        b.changed().await;
        assert_eq!(b.others(), 0);
    }
}
