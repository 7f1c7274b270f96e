use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Samples;
use crate::memory::Memory;

/// What was measured, as a table in Markdown or as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    /// From the sending of the DELETE to the end of the database role, one pod at a time.
    pub(super) deletions: Samples,
    /// The same without a revoker: the DELETE, and then the end of the lease.
    pub(super) bare: Samples,
    pub(super) burst: Burst,
    pub(super) at_start: Memory,
    pub(super) at_end: Memory,
}

/// Pods that were deleted as fast as the API server takes it.
#[derive(Debug)]
pub(super) struct Burst {
    pub(super) pods: usize,
    /// From the first DELETE to the answer to the last.
    pub(super) deleting: Duration,
    /// From the answer to the last DELETE to the end of the last role.
    pub(super) after: Duration,
    /// Of the revoker, to OpenBao.
    pub(super) requests: usize,
    /// Of the revoker, when the last role was gone.
    pub(super) memory: Memory,
}

const PERCENTILES: [usize; 4] = [50, 90, 99, 100];

impl Report {
    pub(crate) fn json(&self) -> Value {
        let side = |samples: &Samples| {
            let [p50, p90, p99, max] = PERCENTILES.map(|percent| samples.percentile(percent));
            json!({
                "count": samples.count(),
                "p50Milliseconds": p50, "p90Milliseconds": p90, "p99Milliseconds": p99, "maxMilliseconds": max,
            })
        };
        let memory =
            |memory: Memory| json!({ "residentKibibytes": memory.resident, "peakKibibytes": memory.peak });
        json!({
            "deletions": side(&self.deletions),
            "bare": side(&self.bare),
            "burst": {
                "pods": self.burst.pods,
                "deletingSeconds": self.burst.deleting.as_secs_f64(),
                "lastRoleAfterLastDeletionSeconds": self.burst.after.as_secs_f64(),
                "vaultRequestsPerPod": self.burst.each(),
            },
            "revoker": {
                "start": memory(self.at_start),
                "burst": memory(self.burst.memory),
                "end": memory(self.at_end),
            },
        })
    }
}

impl Burst {
    fn each(&self) -> f64 {
        if self.pods == 0 { 0.0 } else { self.requests as f64 / self.pods as f64 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("| pod deleted -> database role gone | pods | p50 ms | p90 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|--:|\n")?;
        for (name, samples) in [("revoker", &self.deletions), ("bare", &self.bare)] {
            let [p50, p90, p99, max] = PERCENTILES.map(|percent| samples.percentile(percent));
            writeln!(f, "| {name} | {} | {p50:.1} | {p90:.1} | {p99:.1} | {max:.1} |", samples.count())?;
        }
        let Burst { pods, deleting, after, memory, .. } = &self.burst;
        let megabytes = |kibibytes: u64| kibibytes as f64 * 1024.0 / 1e6;
        write!(
            f,
            "\n| pods deleted at once | DELETEs took s | last role gone after the last DELETE s | Vault requests each |\n\
             |--:|--:|--:|--:|\n| {pods} | {:.2} | {:.2} | {:.2} |\n\n\
             Revoker: {:.1} MB resident at the start, {:.1} MB when the last role was gone, {:.1} MB at the end (peak {:.1} MB).",
            deleting.as_secs_f64(),
            after.as_secs_f64(),
            self.burst.each(),
            megabytes(self.at_start.resident),
            megabytes(memory.resident),
            megabytes(self.at_end.resident),
            megabytes(self.at_end.peak)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        let memory = Memory { resident: 10_000, peak: 11_000 };
        let burst = Burst {
            pods: 500,
            deleting: Duration::from_secs(2),
            after: Duration::from_millis(250),
            requests: 1500,
            memory,
        };
        let sample = |milliseconds| [Duration::from_millis(milliseconds)].into_iter().collect();
        let report =
            Report { deletions: sample(9), bare: sample(7), burst, at_start: memory, at_end: memory };
        let table = report.to_string();
        let cells: Vec<usize> =
            table.lines().map(|line| line.matches('|').count()).filter(|cells| *cells > 0).collect();
        assert_eq!(cells, [7, 7, 7, 7, 5, 5, 5], "{table}");
        assert!(table.contains("| 500 | 2.00 | 0.25 | 3.00 |"), "{table}");
        assert_eq!(report.json()["burst"]["vaultRequestsPerPod"], 3.0);
    }
}
