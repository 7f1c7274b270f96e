//! Pods that come and go, their leases, and a renewer for each shard.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use vdbi_core::{
    credential::{Advice, Renewed},
    ledger::EntryId,
};
use vdbi_lifecycle::{
    budget::Budget,
    renewer::plan::{Attempt, Life, Plan, Step, Task},
};

use super::{Scenario, vault::Vault};

/// `default_ttl` of every lease.
pub(super) const TTL: Duration = Duration::from_secs(3600);

/// The share of the pods that is replaced in a second: 6 % in an hour.
pub(super) const CHURN_PER_SECOND: f64 = 0.06 / 3600.0;

/// The period of every token.
const PERIOD: Duration = Duration::from_secs(768 * 3600);

/// `syncTTLSecond`.
const SCAN: Duration = Duration::from_secs(300);

/// `renewer.maxInFlight`.
const MAX_IN_FLIGHT: usize = 16;

/// `renewer.renewAt`.
const RENEW_AT: f64 = 0.5;

/// When the first shard gets another leader, which knows nothing.
const FAIL_OVER: Duration = Duration::from_secs(6 * 3600);

/// How long nobody leads then.
const FAIL_OVER_TAKES: Duration = Duration::from_secs(15);

pub(super) struct World {
    scenario: Scenario,
    now: Duration,
    random: StdRng,
    vault: Vault,
    shards: Vec<Shard>,
    outcome: Outcome,
    /// The second in which requests are counted, and how many there were.
    second: (u64, u64),
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) expired: u64,
    pub(super) requests: u64,
    /// Seconds that were left of a lease when it was renewed, at least.
    pub(super) narrowest: f64,
    pub(super) busiest_second: u64,
}

struct Shard {
    plan: Plan,
    budget: Budget,
    leases: HashMap<EntryId, Lease>,
    in_flight: BinaryHeap<Reverse<(Duration, Task, bool)>>,
    /// Nothing happens before: the shard has no leader.
    from: Duration,
    scan_at: Duration,
}

#[derive(Clone, Copy)]
struct Lease {
    issued_at: Duration,
    expires_at: Duration,
    /// Whether its pod was created while the world turned, or before with an age that its entry tells.
    young: bool,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let mut random = StdRng::seed_from_u64(7);
        // Time begins when the oldest lease was issued.
        let now = TTL;
        let mut shards: Vec<Shard> = (0..scenario.shards).map(|_| Shard::new(scenario.rate, now)).collect();
        for index in 0..scenario.entries {
            let age = random.random_range(Duration::ZERO..TTL / 2);
            let lease = Lease { issued_at: now - age, expires_at: now - age + TTL, young: !scenario.cold };
            shards[index % scenario.shards].leases.insert(EntryId::random(), lease);
        }
        let outcome = Outcome { expired: 0, requests: 0, narrowest: f64::INFINITY, busiest_second: 0 };
        Self { scenario, now, random, vault: Vault::default(), shards, outcome, second: (0, 0) }
    }

    pub(super) fn run(mut self, seconds: u64) -> Outcome {
        let (start, end) = (self.now, self.now + Duration::from_secs(seconds));
        let mut failed_over = false;
        let mut next: Vec<Duration> = vec![self.now; self.shards.len()];
        while let Some((index, &at)) = next.iter().enumerate().min_by_key(|(_, at)| **at) {
            if at >= end {
                break;
            }
            self.now = self.now.max(at);
            if !failed_over && self.now >= start + FAIL_OVER {
                failed_over = true;
                let leases = std::mem::take(&mut self.shards[0].leases);
                let from = self.now + FAIL_OVER_TAKES;
                self.shards[0] =
                    Shard { leases, from, scan_at: from, ..Shard::new(self.scenario.rate, from) };
                next[0] = from;
                continue;
            }
            self.turn(index);
            next[index] = self.shards[index].next_event(self.now);
        }
        for lease in self.shards.iter().flat_map(|shard| shard.leases.values()) {
            self.outcome.expired += u64::from(lease.expires_at < end);
        }
        self.outcome
    }

    /// Does what is due in one shard.
    fn turn(&mut self, index: usize) {
        let now = self.now;
        let shard = &mut self.shards[index];
        if shard.scan_at <= now {
            shard.replace_pods(now, &mut self.random);
            let listed: HashSet<EntryId> = shard.leases.keys().copied().collect();
            shard.plan.reconcile(now, &listed);
            shard.scan_at = now + SCAN;
        }
        while let Some(&Reverse((at, task, served))) = shard.in_flight.peek()
            && at <= now
        {
            shard.in_flight.pop();
            shard.budget.answered(now, !served);
            let attempt = if served {
                shard.effect(task, now, &mut self.outcome)
            } else {
                Attempt::Failed(Advice::Retry)
            };
            shard.plan.settle(task, now, &attempt, self.random.random());
        }
        if shard.in_flight.len() < MAX_IN_FLIGHT
            && shard.budget.ready_at(now) <= now
            && let Some(task) = shard.plan.take_due(now)
        {
            shard.budget.spend(now, 1);
            let (at, served) = self.vault.serve(now, task.step, &mut self.random);
            shard.in_flight.push(Reverse((at, task, served)));
            self.outcome.requests += 1;
            if self.second.0 != now.as_secs() {
                self.second = (now.as_secs(), 0);
            }
            self.second.1 += 1;
            self.outcome.busiest_second = self.outcome.busiest_second.max(self.second.1);
        }
    }
}

impl Shard {
    fn new(rate: f64, from: Duration) -> Self {
        let (plan, budget) = (Plan::new(RENEW_AT), Budget::new(rate));
        Self { plan, budget, leases: HashMap::new(), in_flight: BinaryHeap::new(), from, scan_at: from }
    }

    fn next_event(&mut self, now: Duration) -> Duration {
        let mut at = self.scan_at;
        if let Some(Reverse((answered, ..))) = self.in_flight.peek() {
            at = at.min(*answered);
        }
        if self.in_flight.len() < MAX_IN_FLIGHT
            && let Some(due) = self.plan.next_due(now)
        {
            at = at.min(due.max(self.budget.ready_at(now)));
        }
        at.max(self.from)
    }

    /// Pods that ended since the last scan, and others that have come.
    fn replace_pods(&mut self, now: Duration, random: &mut StdRng) {
        let count = (self.leases.len() as f64 * CHURN_PER_SECOND * SCAN.as_secs_f64()).round() as usize;
        let ended: Vec<EntryId> = self.leases.keys().take(count).copied().collect();
        for id in &ended {
            self.leases.remove(id);
        }
        for _ in ended {
            let issued_at = now - random.random_range(Duration::ZERO..SCAN);
            self.leases
                .insert(EntryId::random(), Lease { issued_at, expires_at: issued_at + TTL, young: true });
        }
    }

    /// What a request that was served did.
    fn effect(&mut self, task: Task, now: Duration, outcome: &mut Outcome) -> Attempt {
        let Some(lease) = self.leases.get_mut(&task.id) else { return Attempt::Lost };
        match task.step {
            Step::Read => {
                let age = Some(now - lease.issued_at).filter(|_| lease.young);
                Attempt::Found(Life { age, ttl: Some(TTL) })
            }
            Step::Token => Attempt::Renewed(Renewed { ttl: PERIOD, capped: false }),
            Step::Lease if lease.expires_at < now => {
                outcome.expired += 1;
                lease.expires_at = Duration::MAX;
                Attempt::Lost
            }
            Step::Lease => {
                outcome.narrowest = outcome.narrowest.min((lease.expires_at - now).as_secs_f64());
                lease.expires_at = now + TTL;
                Attempt::Renewed(Renewed { ttl: TTL, capped: false })
            }
        }
    }
}
