//! The renewer's plan and budget over days of virtual time and a modelled Vault, beside the algorithm of the Go product.

mod go;
mod vault;
mod world;

use std::fmt;

use serde_json::{Value, json};

use anyhow::Result;

use crate::memory::Memory;
use world::World;

/// One number of entries.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    entries: usize,
    shards: usize,
    /// `vaultRateLimit` of each shard.
    rate: f64,
    /// Whether the renewer knows nothing at the start, as after a fail-over; otherwise every credential is new.
    cold: bool,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { entries: 10_000, shards: 1, rate: 30.0, cold: true },
    Scenario { entries: 100_000, shards: 1, rate: 400.0, cold: true },
    Scenario { entries: 200_000, shards: 1, rate: 700.0, cold: true },
    Scenario { entries: 1_000_000, shards: 8, rate: 250.0, cold: false },
];

/// What came of one scenario.
#[derive(Debug)]
struct Row {
    scenario: Scenario,
    expired: u64,
    requests_per_entry_hour: f64,
    /// Of all credentials at all times, the least that was left.
    narrowest: f64,
    busiest_second: u64,
    /// Of this process, the model included, in kibibytes.
    peak: u64,
    go: go::Outcome,
}

/// What came of all.
#[derive(Debug)]
pub(crate) struct Report {
    hours: u64,
    rows: Vec<Row>,
}

/// Runs every scenario of at most so many entries.
///
/// # Errors
///
/// When the memory of this process cannot be read.
pub(crate) fn measure(hours: u64, largest: usize) -> Result<Report> {
    let rows = SCENARIOS.into_iter().filter(|scenario| scenario.entries <= largest).map(|scenario| {
        let outcome = World::new(scenario).run(hours * 3600);
        Ok(Row {
            scenario,
            expired: outcome.expired,
            requests_per_entry_hour: outcome.requests as f64 / (scenario.entries as f64 * hours as f64),
            narrowest: outcome.narrowest,
            busiest_second: outcome.busiest_second,
            peak: Memory::of(std::process::id())?.peak,
            go: go::run(scenario.entries, hours * 3600),
        })
    });
    Ok(Report { hours, rows: rows.collect::<Result<_>>()? })
}

impl Report {
    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "entries": row.scenario.entries, "shards": row.scenario.shards, "rate_per_shard": row.scenario.rate,
                "expired": row.expired, "requests_per_entry_hour": row.requests_per_entry_hour,
                "least_seconds_left": row.narrowest, "busiest_second": row.busiest_second, "peak_rss_kib": row.peak,
                "go": { "expired": row.go.expired, "requests_per_entry_hour": row.go.requests_per_entry_hour },
            })
        });
        json!({ "virtual_hours": self.hours, "rows": rows.collect::<Vec<_>>() })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} virtual hours, leases of 1 h, ten minutes of outage, a fail-over, 6 % of the pods replaced per hour",
            self.hours
        )?;
        writeln!(
            f,
            "{:>9} {:>6} {:>7} | {:>8} {:>12} {:>13} {:>14} {:>9} | {:>10} {:>12}",
            "entries",
            "shards",
            "limit/s",
            "expired",
            "requests/e-h",
            "least left, s",
            "busiest second",
            "RSS, MiB",
            "Go expired",
            "requests/e-h"
        )?;
        for Row { scenario, expired, requests_per_entry_hour, narrowest, busiest_second, peak, go } in
            &self.rows
        {
            let Scenario { entries, shards, rate, .. } = scenario;
            writeln!(
                f,
                "{entries:>9} {shards:>6} {rate:>7} | {expired:>8} {requests_per_entry_hour:>12.2} {narrowest:>13.0} \
                 {busiest_second:>14} {:>9.1} | {:>10} {:>12.1}",
                *peak as f64 / 1024.0,
                go.expired,
                go.requests_per_entry_hour
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lease_expires_in_a_day_with_an_outage_and_a_fail_over() {
        let scenario = Scenario { entries: 2_000, shards: 2, rate: 10.0, cold: true };
        let outcome = World::new(scenario).run(24 * 3600);
        assert_eq!(outcome.expired, 0);
        let per_hour = outcome.requests as f64 / (24.0 * 2_000.0);
        assert!(per_hour <= 3.0, "{per_hour} requests per entry-hour");
    }

    #[test]
    fn a_budget_below_the_need_is_seen_as_expired_leases() {
        let scenario = Scenario { entries: 2_000, shards: 1, rate: 0.5, cold: true };
        assert!(World::new(scenario).run(6 * 3600).expired > 0);
    }

    #[test]
    fn the_go_algorithm_fails_past_its_threshold_and_not_before() {
        assert_eq!(go::run(20_000, 24 * 3600).expired, 0);
        assert!(go::run(40_000, 24 * 3600).expired > 0);
        let per_hour = go::run(1_000, 24 * 3600).requests_per_entry_hour;
        assert!((per_hour - 48.0).abs() < 1.0, "{per_hour}");
    }
}
