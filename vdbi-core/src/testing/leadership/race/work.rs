//! What contenders do when they lead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::leadership::{Term, WorkError};

/// How a test ends the work of a reign.
#[derive(Clone, Copy, Debug)]
pub(in crate::testing::leadership) enum Ending {
    Return,
    Fail,
    Panic,
}

/// What the work does until a test ends it, and once its term is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing::leadership) enum Work {
    /// Waits, and takes so long to return.
    Draining(Duration),
    /// Has an effect under way, which ends so long after the term has.
    Effect(Duration),
    /// Never returns.
    Endless,
}

/// One call of the work.
pub(in crate::testing::leadership) struct Reign {
    pub(in crate::testing::leadership) contender: usize,
    pub(in crate::testing::leadership) term: Term,
    ending: oneshot::Sender<Ending>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    returned: AtomicBool,
    /// It is there, whether it goes on or not.
    under_way: AtomicBool,
    effect_begun: AtomicBool,
    effect_ended: AtomicBool,
}

/// Takes note when the work's future is gone.
struct Presence(Arc<Progress>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.under_way.store(false, Ordering::Release);
    }
}

impl Reign {
    pub(in crate::testing::leadership) fn end(self, ending: Ending) {
        // Work that is over already cannot be told anything.
        let _ = self.ending.send(ending);
    }

    /// Whether the work came to its end, rather than being dropped on the way.
    pub(in crate::testing::leadership) fn has_returned(&self) -> bool {
        self.progress.returned.load(Ordering::Acquire)
    }

    /// Whether the work has neither come to its end nor been dropped.
    pub(in crate::testing::leadership) fn is_under_way(&self) -> bool {
        self.progress.under_way.load(Ordering::Acquire)
    }

    /// Whether its effect was begun and not brought to its end.
    pub(in crate::testing::leadership) fn was_cut_off(&self) -> bool {
        let Progress { effect_begun, effect_ended, .. } = &*self.progress;
        effect_begun.load(Ordering::Acquire) && !effect_ended.load(Ordering::Acquire)
    }
}

impl Work {
    /// The work of a contender, which tells each call.
    pub(super) fn of(
        self,
        contender: usize,
        reigns: mpsc::UnboundedSender<Reign>,
    ) -> impl FnMut(Term) -> BoxFuture<'static, Result<(), WorkError>> + Send + 'static {
        move |term| {
            let (sender, ending) = oneshot::channel();
            let progress = Arc::<Progress>::default();
            progress.under_way.store(true, Ordering::Release);
            let presence = Presence(progress.clone());
            let reign = Reign { contender, term: term.clone(), ending: sender, progress: progress.clone() };
            // A test that is over needs no more reigns.
            let _ = reigns.send(reign);
            Box::pin(async move {
                let _presence = presence;
                let ending = tokio::select! {
                    Ok(ending) = ending => ending,
                    () = self.until_over(&term, &progress) => Ending::Return,
                };
                progress.returned.store(true, Ordering::Release);
                match ending {
                    Ending::Return => Ok(()),
                    Ending::Fail => Err("the contract suite lets this work fail".into()),
                    Ending::Panic => panic!("the contract suite lets this work panic"),
                }
            })
        }
    }

    async fn until_over(self, term: &Term, progress: &Progress) {
        match self {
            Self::Draining(drain) => {
                term.over().await;
                sleep(drain).await;
            }
            Self::Effect(more) => {
                let effect = async {
                    progress.effect_begun.store(true, Ordering::Release);
                    term.over().await;
                    sleep(more).await;
                    progress.effect_ended.store(true, Ordering::Release);
                };
                // That the term may be over is what the test looks at.
                let _ = term.run(effect).await;
            }
            Self::Endless => std::future::pending().await,
        }
    }
}
