use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::memory::Memory;

/// What was measured, as a table in Markdown or as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) sizes: Vec<Size>,
    pub(super) economy: Economy,
}

/// One number of entries.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) size: usize,
    /// From the start of the term until lease and token of each have been renewed.
    pub(super) took: Duration,
    /// Of the renewer, to OpenBao, in that time.
    pub(super) requests: usize,
    /// When all are renewed.
    pub(super) renewer: Memory,
    /// After a comparison of all entries with all pods.
    pub(super) revoker: Memory,
}

/// Requests over several lives of the same leases.
#[derive(Debug)]
pub(super) struct Economy {
    pub(super) entries: usize,
    /// Of a lease, one after another.
    pub(super) lives: u32,
    /// Of the renewer, to OpenBao, its own session and the lists of the ledger included.
    pub(super) requests: usize,
}

impl Size {
    fn per_second(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.requests as f64 / self.took.as_secs_f64() }
    }
}

impl Economy {
    /// By entry and life; with leases of an hour, by entry and hour.
    fn each(&self) -> f64 {
        let lives = self.entries as f64 * f64::from(self.lives);
        if lives > 0.0 { self.requests as f64 / lives } else { 0.0 }
    }
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let memory =
            |memory: &Memory| json!({ "residentKibibytes": memory.resident, "peakKibibytes": memory.peak });
        let sizes = self.sizes.iter().map(|size| {
            json!({
                "entries": size.size,
                "renewedWithinSeconds": size.took.as_secs_f64(),
                "requestsPerSecond": size.per_second(),
                "renewer": memory(&size.renewer),
                "revoker": memory(&size.revoker),
            })
        });
        json!({
            "sizes": sizes.collect::<Vec<_>>(),
            "requestsPerEntryAndLife": self.economy.each(),
            "lives": self.economy.lives,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "| entries | all renewed within s | requests/s | renewer MB | peak MB | revoker MB | peak MB |\n\
             |--:|--:|--:|--:|--:|--:|--:|\n",
        )?;
        let megabytes = |kibibytes: u64| kibibytes as f64 * 1024.0 / 1e6;
        for size in &self.sizes {
            let [renewer, renewer_peak] = [size.renewer.resident, size.renewer.peak].map(megabytes);
            let [revoker, revoker_peak] = [size.revoker.resident, size.revoker.peak].map(megabytes);
            writeln!(
                f,
                "| {} | {:.1} | {:.0} | {renewer:.1} | {renewer_peak:.1} | {revoker:.1} | {revoker_peak:.1} |",
                size.size,
                size.took.as_secs_f64(),
                size.per_second(),
            )?;
        }
        write!(
            f,
            "\n{:.2} requests per entry and life of its lease, over {} lives of {} leases.",
            self.economy.each(),
            self.economy.lives,
            self.economy.entries
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let memory = Memory { resident: 10_000, peak: 11_000 };
        let took = Duration::from_secs(10);
        let size = Size { size: 1000, took, requests: 3000, renewer: memory, revoker: memory };
        let economy = Economy { entries: 200, lives: 4, requests: 1800 };
        let report = Report { sizes: vec![size], economy };
        let table = report.to_string();
        let cells: Vec<usize> = table.lines().take(3).map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [8, 8, 8], "{table}");
        assert!(table.contains("| 1000 | 10.0 | 300 | 10.2 "), "{table}");
        assert_eq!(report.json()["requestsPerEntryAndLife"], 2.25);
    }
}
