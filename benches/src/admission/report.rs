use std::fmt;

use serde_json::{Value, json};

use crate::load::Samples;
use crate::memory::Memory;

/// What was measured, as a table in Markdown or as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) levels: Vec<Level>,
    pub(super) at_start: Memory,
    pub(super) at_end: Memory,
}

/// One number of clients.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) clients: usize,
    pub(super) bare: Samples,
    pub(super) admissions: Samples,
    /// What reached OpenBao during the admissions.
    pub(super) vault_requests: usize,
    /// What OpenBao asked the API server during the admissions.
    pub(super) token_reviews: usize,
}

impl Level {
    pub(super) fn of(clients: usize) -> Self {
        let (bare, admissions) = (Samples::default(), Samples::default());
        Self { clients, bare, admissions, vault_requests: 0, token_reviews: 0 }
    }

    /// Admissions for each of what the bare round trips reach: 1 is the limit.
    fn ratio(&self) -> f64 {
        quotient(self.admissions.per_second(), self.bare.per_second())
    }

    fn each(&self, requests: usize) -> f64 {
        quotient(requests as f64, self.admissions.count() as f64)
    }
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let side = |samples: &Samples| {
            json!({
                "count": samples.count(),
                "perSecond": samples.per_second(),
                "p50Milliseconds": samples.percentile(50),
                "p99Milliseconds": samples.percentile(99),
            })
        };
        let level = |level: &Level| {
            json!({
                "clients": level.clients,
                "admissions": side(&level.admissions),
                "bare": side(&level.bare),
                "ratio": level.ratio(),
                "vaultRequestsPerAdmission": level.each(level.vault_requests),
                "tokenReviewsPerAdmission": level.each(level.token_reviews),
            })
        };
        let memory =
            |memory: Memory| json!({ "residentKibibytes": memory.resident, "peakKibibytes": memory.peak });
        json!({
            "levels": self.levels.iter().map(level).collect::<Vec<_>>(),
            "injector": { "start": memory(self.at_start), "end": memory(self.at_end) },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "| clients | admissions/s | p50 ms | p99 ms | bare/s | p50 ms | p99 ms | ratio | Vault requests each | TokenReviews each |\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        )?;
        for level in &self.levels {
            write!(f, "| {} ", level.clients)?;
            for side in [&level.admissions, &level.bare] {
                let (rate, p50, p99) = (side.per_second(), side.percentile(50), side.percentile(99));
                write!(f, "| {rate:.0} | {p50:.1} | {p99:.1} ")?;
            }
            let (vault, reviews) = (level.each(level.vault_requests), level.each(level.token_reviews));
            writeln!(f, "| {:.2} | {vault:.2} | {reviews:.2} |", level.ratio())?;
        }
        let admissions: usize = self.levels.iter().map(|level| level.admissions.count()).sum();
        let megabytes = |kibibytes: u64| kibibytes as f64 * 1024.0 / 1e6;
        write!(
            f,
            "\nInjector: {:.1} MB resident at the start, {:.1} MB after {admissions} admissions (peak {:.1} MB).",
            megabytes(self.at_start.resident),
            megabytes(self.at_end.resident),
            megabytes(self.at_end.peak)
        )
    }
}

fn quotient(dividend: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { dividend / divisor } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Report {
        let memory = Memory { resident: 18_000, peak: 20_000 };
        Report { levels: vec![Level::of(4)], at_start: memory, at_end: memory }
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let table = empty().to_string();
        let cells: Vec<usize> = table.lines().take(3).map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [11, 11, 11], "{table}");
        assert!(table.contains("18.4 MB resident at the start"), "{table}");
    }

    #[test]
    fn a_level_without_samples_divides_by_nothing() {
        assert_eq!(empty().json()["levels"][0]["ratio"], 0.0);
    }
}
