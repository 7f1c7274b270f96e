//! One election for each shard, in one process.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use kube::Client;
use rand::{Rng, seq::IteratorRandom};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    clock::Clock,
    health::Health,
    leadership::{Leadership, LeadershipError, Status, Term, WorkError},
    metrics::Registry,
};

use super::{
    LeaseElection, Settings,
    balance::Sight,
    board::{Board, BoardError, Wish},
    load::Load,
    view,
};
use crate::shard::Shard;

/// Looks at the balance so many times within a lease duration.
const LOOKS: u32 = 3;

/// So many looks in a row have to show that this replica has too little before it asks for more.
const PATIENCE: u32 = 2;

/// A [`LeaseElection`] for each shard of a ledger, so that replicas share the work. With one shard it is no more than that election.
///
/// # Flow
///
/// Each shard has a Lease, `<lease_name>-0` and so on, and is led by one replica. The more shards a replica leads, the later it takes a
/// free lease, so that replicas which start together, or take over from one that died, end up with as many each. A replica that sees
/// another one with at least two more writes its name into the Lease `<lease_name>-wanted`; whoever leads most then finishes what it has
/// begun for one of its shards, and releases that, which the other one takes first.
///
/// # Guarantees
///
/// Those of [`LeaseElection`], for each shard. That shards spread evenly is none of them: it is only likely, and takes some lease
/// durations.
///
/// # Assumptions
///
/// All replicas divide the ledger into as many shards. While some divide it otherwise, two may do the same work.
pub struct Elections {
    shards: Vec<(Shard, LeaseElection)>,
    board: Board,
    identity: String,
    pause: Duration,
}

/// What looks after the balance while the elections run.
struct Balancer {
    board: Board,
    me: String,
    pause: Duration,
    shards: Vec<(watch::Receiver<Status>, Arc<Notify>)>,
    /// How often in a row this replica had too little.
    wanting: u32,
    /// The wish that was seen last, `None` before anybody looked.
    seen: Option<Option<Wish>>,
}

impl Elections {
    /// Of so many shards; `settings.lease_name` is what their leases' names begin with. See [`LeaseElection::new`] for the rest.
    ///
    /// # Errors
    ///
    /// See [`Settings::validate`]; and no shards at all.
    pub fn new(
        client: Client,
        settings: Settings,
        shards: u16,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self, LeadershipError> {
        settings.validate()?;
        if shards == 0 {
            return Err(LeadershipError::Misconfigured("a ledger has one shard at least".into()));
        }
        let load = Load::default();
        let election = |shard: Shard| {
            let lease_name = shard.lease_name(&settings.lease_name);
            let settings = Settings { lease_name, ..settings.clone() };
            let election = LeaseElection::new(client.clone(), settings, clock.clone(), registry)?;
            Ok((shard, if shards == 1 { election } else { election.sharing(load.clone()) }))
        };
        Ok(Self {
            shards: Shard::all(shards).map(election).collect::<Result<_, LeadershipError>>()?,
            board: Board::new(client.clone(), &settings),
            identity: settings.identity.to_string(),
            pause: settings.lease_duration / LOOKS,
        })
    }

    /// As [`LeaseElection::report`]: the check passes while it passes for every shard, and the detail `leader` tells of each.
    pub fn report(&self, health: &Health) {
        view::report(self.shards.iter().map(|(_, election)| election.view.clone()).collect(), health);
    }

    /// As [`LeaseElection::on_overrun`].
    #[must_use]
    pub fn on_overrun(self, callback: impl Fn() + Send + Sync + 'static) -> Self {
        let callback = Arc::new(callback);
        let guarded = |(shard, election): (Shard, LeaseElection)| {
            let callback = callback.clone();
            (shard, election.on_overrun(move || callback()))
        };
        Self { shards: self.shards.into_iter().map(guarded).collect(), ..self }
    }

    /// What each election knows, as it changes.
    pub fn statuses(&self) -> impl Iterator<Item = (Shard, watch::Receiver<Status>)> + '_ {
        self.shards.iter().map(|(shard, election)| (*shard, election.status()))
    }

    /// Competes for every shard until `shutdown`, and works for those that are won. As [`Leadership::run`] does, of which
    /// `work` gets the terms.
    ///
    /// # Errors
    ///
    /// The first of any shard's; it ends the others, as a shutdown does.
    pub async fn run<W, F>(self, work: W, shutdown: CancellationToken) -> Result<(), LeadershipError>
    where
        W: FnMut(Shard, Term) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), WorkError>> + Send + 'static,
    {
        let Self { shards, board, identity, pause } = self;
        let balanced =
            shards.iter().map(|(_, election)| (election.status(), election.yields.clone())).collect();
        let mut balancer = Balancer { board, me: identity, pause, shards: balanced, wanting: 0, seen: None };
        let is_shared = shards.len() > 1;
        let stop = shutdown.child_token();
        let mut runs = JoinSet::new();
        for (shard, election) in shards {
            let mut work = work.clone();
            runs.spawn(election.run(move |term| work(shard, term), stop.clone()));
        }
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                ended = runs.join_next() => match ended {
                    None => return outcome,
                    Some(Ok(ended)) => {
                        if ended.is_err() {
                            stop.cancel();
                        }
                        outcome = outcome.and(ended);
                    }
                    // An election has a bug: the others must not go on as if all were well.
                    Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Some(Err(_)) => {}
                },
                Some(()) = stop.run_until_cancelled(balancer.run()), if is_shared => {}
            }
        }
    }
}

impl Balancer {
    /// One look, after a pause. It may be dropped at any time.
    async fn run(&mut self) {
        let spread = rand::rng().random_range(0.8..1.2);
        sleep(self.pause.mul_f64(spread)).await;
        if let Err(error) = self.look().await {
            tracing::debug!(%error, "could not look after the balance of the shards");
        }
    }

    async fn look(&mut self) -> Result<(), BoardError> {
        let holder = |(status, _): &(watch::Receiver<Status>, _)| {
            let Status { leading, holder, .. } = status.borrow().clone();
            // What is being won or handed over is as good as nobody's.
            if leading || holder != self.me { holder } else { String::new() }
        };
        let holders = self.shards.iter().map(holder).collect();
        let sight = Sight { me: &self.me, holders };
        if sight.wants() {
            self.wanting += 1;
            if self.wanting >= PATIENCE {
                self.wanting = 0;
                self.board.ask(&self.me).await?;
            }
            return Ok(());
        }
        self.wanting = 0;
        if sight.shards_of(&self.me) < 2 {
            // Whoever has nothing to give knows nothing of wishes, and must not take an old one for new when it has.
            self.seen = None;
            return Ok(());
        }
        let wish = self.board.read().await?;
        let before = self.seen.replace(wish.clone());
        if let Some(Wish { replica, .. }) =
            wish.clone().filter(|_| before.is_some_and(|before| before != wish))
            && sight.yields_to(&replica)
        {
            let own = self.shards.iter().filter(|(status, _)| status.borrow().leading);
            if let Some((_, yields)) = own.choose(&mut rand::rng()) {
                tracing::info!(replica, "replica {replica} has fewer shards and gets one of this replica's");
                yields.notify_one();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Elections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shards.iter().map(|(_, election)| election)).finish()
    }
}
