use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Samples;
use crate::memory::Memory;

/// What was measured, as tables in Markdown or as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) pods: usize,
    /// What the creation of a container takes where there is no plugin.
    pub(super) without: Samples,
    /// With credentials that were there before, in each round.
    pub(super) cached: Vec<Creations>,
    /// With credentials that had to be fetched.
    pub(super) fetched: Creations,
    /// Until the creation was refused while OpenBao stood still.
    pub(super) frozen: Duration,
    /// Of the plugin: idle, and after each round.
    pub(super) memory: Vec<Memory>,
}

/// The creation of containers with the plugin.
#[derive(Debug)]
pub(super) struct Creations {
    /// As the runtime's client sees it.
    pub(super) runtime: Samples,
    /// As the plugin sees it.
    pub(super) plugin: Samples,
}

const PERCENTILES: [usize; 3] = [50, 99, 100];

impl Report {
    /// Names and samples, in the order of the table.
    fn rows(&self) -> Vec<(&'static str, &Samples)> {
        let mut rows = vec![("CreateContainer, no plugin", &self.without)];
        for Creations { runtime, plugin } in &self.cached {
            rows.extend([("CreateContainer, cached", runtime), ("in the plugin, cached", plugin)]);
        }
        let Creations { runtime, plugin } = &self.fetched;
        rows.extend([("CreateContainer, fetched", runtime), ("in the plugin, fetched", plugin)]);
        rows
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.rows().into_iter().map(|(name, samples)| {
            let [p50, p99, max] = PERCENTILES.map(|percent| samples.percentile(percent));
            json!({
                "what": name, "count": samples.count(),
                "p50Milliseconds": p50, "p99Milliseconds": p99, "maxMilliseconds": max,
            })
        });
        json!({
            "pods": self.pods,
            "creations": rows.collect::<Vec<_>>(),
            "refusedAfterSeconds": self.frozen.as_secs_f64(),
            "residentKibibytes": self.memory.iter().map(|memory| memory.resident).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("| | containers | p50 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|\n")?;
        for (name, samples) in self.rows() {
            let [p50, p99, max] = PERCENTILES.map(|percent| samples.percentile(percent));
            writeln!(f, "| {name} | {} | {p50:.3} | {p99:.3} | {max:.3} |", samples.count())?;
        }
        let megabytes = |memory: &Memory| format!("{:.1} MB", memory.resident as f64 * 1024.0 / 1e6);
        let memory: Vec<String> = self.memory.iter().map(megabytes).collect();
        write!(
            f,
            "\nWhile OpenBao stood still, the creation was refused after {:.2} s. The plugin: {} resident, idle and after every {} pods.",
            self.frozen.as_secs_f64(),
            memory.join(", "),
            self.pods
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        let sample = |micros| [Duration::from_micros(micros)].into_iter().collect::<Samples>();
        let creations = |micros| Creations { runtime: sample(10 * micros), plugin: sample(micros) };
        let report = Report {
            pods: 100,
            without: sample(9000),
            cached: vec![creations(80), creations(90)],
            fetched: creations(9000),
            frozen: Duration::from_millis(1500),
            memory: vec![Memory { resident: 10_000, peak: 11_000 }; 3],
        };
        let table = report.to_string();
        let cells: Vec<usize> =
            table.lines().map(|line| line.matches('|').count()).filter(|cells| *cells > 0).collect();
        assert_eq!(cells, [6; 9], "{table}");
        assert!(table.contains("| in the plugin, cached | 1 | 0.080 | 0.080 | 0.080 |"), "{table}");
        assert_eq!(report.json()["creations"][2]["p50Milliseconds"], 0.08);
    }
}
