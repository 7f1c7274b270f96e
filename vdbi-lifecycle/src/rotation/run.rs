//! Does what the plan says, while the term lasts.

use std::time::Duration;

use futures::StreamExt;
use kube::runtime::events::{Event, EventType};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet, time::Instant};
use vdbi_core::{leadership::Term, pod::ROTATION_ANNOTATION};

use super::{
    Rotation,
    evict::evict,
    look::Look,
    metrics::Counted,
    plan::{Act, Eviction, Note, Outcome, Plan, Seen},
};
use crate::{
    events::{ROTATION, ROTATION_BLOCKED},
    shard::Shard,
};

/// Lists under way at once.
const LOOKS: usize = 4;

/// What was done.
enum Done {
    Looked { seen: Vec<Seen>, failed: Vec<String> },
    Evicted { eviction: Eviction, outcome: Outcome, said: String },
}

/// What one term knows.
struct Work {
    term: Term,
    started: Instant,
    plan: Plan,
    doing: JoinSet<Done>,
    /// Events under way.
    telling: JoinSet<()>,
}

impl Rotation {
    pub(super) async fn run(self, term: Term, shard: Shard, mut notes: UnboundedReceiver<Note>) {
        let _counted = self.metrics.waiting.count(shard);
        let mut work = Work {
            term,
            started: Instant::now(),
            plan: Plan::new(shard.share_of(self.settings.max_in_flight)),
            doing: JoinSet::new(),
            telling: JoinSet::new(),
        };
        while work.term.check().is_ok() {
            self.metrics.waiting.tell(shard, |waiting| *waiting = work.plan.waiting());
            let due = work.plan.next_due();
            tokio::select! {
                () = work.term.over() => break,
                note = notes.recv() => {
                    let Some(note) = note else { break };
                    work.plan.note(work.started.elapsed(), note, rand::random());
                }
                Some(done) = work.doing.join_next() => match done {
                    Ok(done) => self.settle(&mut work, done),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_aborted) => {}
                },
                Some(_) = work.telling.join_next() => {}
                () = tokio::time::sleep_until(work.started + due.unwrap_or_default()), if due.is_some() => {
                    let looks = work.plan.take_due(work.started.elapsed());
                    work.doing.spawn(self.clone().look(work.term.clone(), looks));
                }
            }
        }
        // What has begun is finished, as far as the term lets it.
        while let Some(done) = work.doing.join_next().await {
            if let Ok(done @ Done::Evicted { .. }) = done {
                self.settle(&mut work, done);
            }
        }
    }

    async fn look(self, term: Term, looks: Vec<Look>) -> Done {
        let (mut seen, mut failed) = (Vec::new(), Vec::new());
        let looks = futures::stream::iter(looks).map(|look| {
            let (namespace, look) = (look.namespace.clone(), look.at(&self.client, &self.settings.label));
            async { (namespace, term.wait(look).await) }
        });
        let mut looks = looks.buffer_unordered(LOOKS);
        while let Some((namespace, looked)) = looks.next().await {
            match looked {
                Ok(Ok(pods)) => seen.push(pods),
                Ok(Err(error)) => {
                    tracing::warn!(
                        %namespace, %error,
                        "could not list the pods of namespace {namespace} to see which are to be rotated: {error}"
                    );
                    failed.push(namespace);
                }
                Err(_over) => failed.push(namespace),
            }
        }
        drop(looks);
        Done::Looked { seen, failed }
    }

    fn settle(&self, work: &mut Work, done: Done) {
        let now = work.started.elapsed();
        match done {
            Done::Looked { seen, failed } => {
                for act in work.plan.saw(now, seen, failed) {
                    match act {
                        Act::Evict(eviction) => {
                            let (client, term) = (self.client.clone(), work.term.clone());
                            work.doing.spawn(async move {
                                let (outcome, said) = evict(client, term, &eviction).await;
                                Done::Evicted { eviction, outcome, said }
                            });
                        }
                        Act::NoController(eviction) => {
                            self.metrics.count(Counted::NoController);
                            self.tell(
                                work,
                                eviction,
                                blocked("it has no controller that would make another in its place"),
                            );
                        }
                    }
                }
            }
            Done::Evicted { eviction, outcome, said } => {
                let warn = work.plan.settle(now, &eviction, outcome, rand::random());
                self.evicted(work, eviction, outcome, &said, warn);
            }
        }
    }

    fn evicted(&self, work: &mut Work, eviction: Eviction, outcome: Outcome, said: &str, warn: bool) {
        let Eviction { namespace, name, database, left, .. } = &eviction;
        let counted = match outcome {
            Outcome::Evicted => Counted::Evicted,
            Outcome::Blocked => Counted::Blocked,
            Outcome::Refused => Counted::Refused,
            Outcome::Failed => Counted::Failed,
            Outcome::Vanished => return,
        };
        self.metrics.count(counted);
        if outcome == Outcome::Evicted {
            tracing::info!(
                %namespace, pod = name, %database, ?left,
                "evicted pod {namespace}/{name}, whose credential for database {database} ends in {left:.0?}, as its annotation \
                 rotation asks"
            );
            let note = format!("{}, as the annotation {ROTATION_ANNOTATION} asks", ends(database, *left));
            let note =
                format!("vault-db-injector: evicted, so that another pod gets another credential: {note}");
            self.tell(work, eviction, event(EventType::Normal, ROTATION, note));
        } else if warn {
            let right = if outcome == Outcome::Refused {
                ". Grant vdbi-renewer the verb create on pods/eviction, or set rotation.enabled to false"
            } else {
                ""
            };
            tracing::warn!(
                %namespace, pod = name, %database, ?left,
                "cannot evict pod {namespace}/{name}, whose credential for database {database} ends in {left:.0?}, and will try \
                 again: {said}{right}"
            );
            let why = format!(
                "{}, and the API server does not let it be evicted: {said}{right}",
                ends(database, *left)
            );
            self.tell(work, eviction, blocked(&why));
        } else {
            tracing::debug!(%namespace, pod = name, ?outcome, "could not evict pod {namespace}/{name}: {said}");
        }
    }

    fn tell(&self, work: &mut Work, eviction: Eviction, event: Event) {
        let events = self.events.clone();
        work.telling.spawn(async move {
            let Eviction { namespace, name, uid, .. } = &eviction;
            if let Err(error) = events.publish(namespace, name, uid, &event).await {
                tracing::warn!(%error, "could not write an event for pod {namespace}/{name}: {error}");
            }
        });
    }
}

fn ends(database: &str, left: Duration) -> String {
    if left.is_zero() {
        format!("the credential for database {database} has ended")
    } else {
        format!("the credential for database {database} ends in {left:.0?} at its max_ttl")
    }
}

fn blocked(why: &str) -> Event {
    event(EventType::Warning, ROTATION_BLOCKED, format!("vault-db-injector: this pod is not rotated: {why}"))
}

fn event(type_: EventType, reason: &str, note: String) -> Event {
    Event { type_, reason: reason.into(), note: Some(note), action: "Rotate".into(), secondary: None }
}
