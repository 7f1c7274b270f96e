use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::End;
use super::group::{Handover, Make};
use crate::load::Samples;

/// What was measured, as tables in Markdown or as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) cases: Vec<Case>,
    pub(super) requests: Vec<Requests>,
}

/// One end of a leader, at one number of candidates.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) make: Make,
    pub(super) end: End,
    pub(super) candidates: u16,
    pub(super) handovers: Vec<Handover>,
}

/// Requests per second of one replica.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) make: Make,
    pub(super) leader: f64,
    pub(super) follower: f64,
}

impl Case {
    fn took(&self) -> Samples {
        self.handovers.iter().map(|handover| handover.took).collect()
    }

    /// The Leases that two led at once.
    fn overlaps(&self) -> usize {
        self.handovers.iter().filter(|handover| !handover.overlap.is_zero()).count()
    }

    fn longest_overlap(&self) -> Duration {
        self.handovers.iter().map(|handover| handover.overlap).max().unwrap_or_default()
    }
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let case = |case: &Case| {
            json!({
                "election": case.make.name(),
                "end": case.end.name(),
                "candidates": case.candidates,
                "count": case.handovers.len(),
                "p50Milliseconds": case.took().percentile(50),
                "p99Milliseconds": case.took().percentile(99),
                "overlaps": case.overlaps(),
                "longestOverlapMilliseconds": case.longest_overlap().as_secs_f64() * 1000.0,
            })
        };
        let requests = |requests: &Requests| {
            json!({
                "election": requests.make.name(),
                "leaderPerSecond": requests.leader,
                "followerPerSecond": requests.follower,
            })
        };
        json!({
            "cases": self.cases.iter().map(case).collect::<Vec<_>>(),
            "requests": self.requests.iter().map(requests).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "| the leader's end | candidates | election | p50 s | p99 s | two led at once | longest s |\n\
             |---|--:|---|--:|--:|--:|--:|\n",
        )?;
        for case in &self.cases {
            let (end, candidates, make) = (case.end.name(), case.candidates, case.make.name());
            let [p50, p99] = [50, 99].map(|percent| case.took().percentile(percent) / 1000.0);
            let (overlaps, count) = (case.overlaps(), case.handovers.len());
            let longest = case.longest_overlap().as_secs_f64();
            writeln!(
                f,
                "| {end} | {candidates} | {make} | {p50:.3} | {p99:.3} | {overlaps} of {count} | {longest:.3} |"
            )?;
        }
        f.write_str("\n| election | leader's requests/s | follower's requests/s |\n|---|--:|--:|")?;
        for Requests { make, leader, follower } in &self.requests {
            write!(f, "\n| {} | {leader:.3} | {follower:.4} |", make.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_as_many_cells_as_its_head_and_overlaps_are_counted() {
        let handover = |took, overlap| Handover {
            took: Duration::from_millis(took),
            overlap: Duration::from_millis(overlap),
        };
        let handovers = vec![handover(100, 0), handover(300, 20)];
        let case = Case { make: Make::ClientGo, end: End::CutOff, candidates: 2, handovers };
        let requests = Requests { make: Make::Vdbi, leader: 0.3, follower: 0.0 };
        let table = Report { cases: vec![case], requests: vec![requests] }.to_string();
        let cells: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [8, 8, 8, 0, 4, 4, 4], "{table}");
        assert!(table.contains("| 0.100 | 0.300 | 1 of 2 | 0.020 |"), "{table}");
    }
}
