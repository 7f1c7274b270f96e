//! The page that Prometheus scrapes.

use std::{fmt, sync::Arc};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;

use super::AdminError;
use crate::metrics::{Kind, Registry, Sample};

/// Upper bounds of every histogram of durations, in seconds: from a cached answer to a request that is given up.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0];

/// The node plugin's metrics have other ones: most of what it does takes a tenth of a millisecond, and nothing more than two seconds.
const NODE_PLUGIN: &str = "vdbi_nri_";

const NODE_PLUGIN_SECONDS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5,
];

/// A registry and the page of what is registered in it. Nothing is installed globally: a process may have several.
///
/// # Errors
///
/// [`AdminError::Metrics`], which only a defect here can cause.
pub fn prometheus() -> Result<(Registry, PrometheusPage), AdminError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Prefix(NODE_PLUGIN.to_owned()), NODE_PLUGIN_SECONDS)
        })
        .map_err(AdminError::Metrics)?
        .build_recorder();
    let (handle, recorder) = (recorder.handle(), Arc::new(recorder));
    let registry = Registry::new(recorder.clone());
    let page = PrometheusPage { handle, recorder, registry: registry.clone(), process: Collector::default() };
    metrics::with_local_recorder(&page.recorder, || page.process.describe());
    Ok((registry, page))
}

/// Renders what a [`Registry`] holds, and the process's own `process_*` metrics. Clones share it.
#[derive(Clone)]
pub struct PrometheusPage {
    handle: PrometheusHandle,
    recorder: Arc<PrometheusRecorder>,
    registry: Registry,
    process: Collector,
}

impl PrometheusPage {
    /// The page as of now, in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        self.upkeep();
        self.handle.render() + &computed(self.registry.samples())
    }

    /// Folds recorded durations into their buckets.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl fmt::Debug for PrometheusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrometheusPage")
    }
}

/// The computed series, in a recorder of their own: those of the last scrape must not stay.
fn computed(samples: Vec<Sample>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let registry = Registry::new(Arc::new(recorder));
    for Sample { definition, labels, value } in samples {
        let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match definition.kind {
            Kind::Counter => registry.counter(definition, &labels).absolute(value as u64),
            Kind::Gauge | Kind::Histogram => registry.gauge(definition, &labels).set(value),
        }
    }
    handle.render()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use metrics::Unit;

    use super::*;
    use crate::metrics::{Collect, Definition};

    const DONE: Definition = Definition {
        name: "vdbi_done_count_success",
        kind: Kind::Counter,
        unit: None,
        labels: &["namespace"],
        help: "Things done.",
    };

    const TOOK: Definition = Definition {
        // Not every name of the Go product ends with its unit.
        name: "vdbi_took_duration",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long they took.",
    };

    const OPEN: Definition =
        Definition { name: "vdbi_open", kind: Kind::Gauge, unit: None, labels: &[], help: "Things open." };

    fn lines(page: &PrometheusPage, name: &str) -> Vec<String> {
        page.render().lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
    }

    #[test]
    fn a_counter_keeps_its_name_and_is_described() {
        let (registry, page) = prometheus().unwrap();
        registry.counter(&DONE, &[("namespace", "team-a")]).increment(3);
        assert_eq!(
            lines(&page, "vdbi_done"),
            [
                "# HELP vdbi_done_count_success Things done.",
                "# TYPE vdbi_done_count_success counter",
                r#"vdbi_done_count_success{namespace="team-a"} 3"#,
            ]
        );
    }

    #[test]
    fn what_is_registered_shows_before_it_is_counted() {
        let (registry, page) = prometheus().unwrap();
        let _gauge = registry.gauge(&OPEN, &[]);
        assert_eq!(
            lines(&page, "vdbi_open"),
            ["# HELP vdbi_open Things open.", "# TYPE vdbi_open gauge", "vdbi_open 0"]
        );
    }

    #[test]
    fn durations_are_histograms_in_seconds() {
        let (registry, page) = prometheus().unwrap();
        registry.histogram(&TOOK, &[]).record(std::time::Duration::from_millis(3));
        let lines = lines(&page, "vdbi_took");
        assert_eq!(lines[1], "# TYPE vdbi_took_duration histogram");
        assert_eq!(lines[2], r#"vdbi_took_duration_bucket{le="0.001"} 0"#);
        assert_eq!(lines[4], r#"vdbi_took_duration_bucket{le="0.005"} 1"#);
        assert_eq!(lines[18], r#"vdbi_took_duration_bucket{le="60"} 1"#);
        assert_eq!(lines[19], r#"vdbi_took_duration_bucket{le="+Inf"} 1"#);
        assert_eq!(lines[20], "vdbi_took_duration_sum 0.003");
        assert_eq!(lines[21], "vdbi_took_duration_count 1");
    }

    const AGE: Definition =
        Definition { name: "vdbi_age", kind: Kind::Gauge, unit: None, labels: &["name"], help: "How old." };

    struct Ages(Mutex<Vec<f64>>);

    impl Collect for Ages {
        fn collect(&self) -> Vec<Sample> {
            let sample =
                |&value| Sample { definition: &AGE, labels: vec![("name", "a\"b".to_owned())], value };
            self.0.lock().unwrap().iter().map(sample).collect()
        }
    }

    #[test]
    fn a_computed_gauge_shows_while_there_is_something_to_tell() {
        let (registry, page) = prometheus().unwrap();
        let ages = Arc::new(Ages(Mutex::default()));
        registry.collect_from(&ages);
        assert!(lines(&page, "vdbi_age").is_empty());
        ages.0.lock().unwrap().push(4.5);
        assert_eq!(
            lines(&page, "vdbi_age"),
            ["# HELP vdbi_age How old.", "# TYPE vdbi_age gauge", r#"vdbi_age{name="a\"b"} 4.5"#]
        );
        ages.0.lock().unwrap().clear();
        assert!(lines(&page, "vdbi_age").is_empty());
        ages.0.lock().unwrap().push(4.5);
        drop(ages);
        assert!(lines(&page, "vdbi_age").is_empty(), "whoever told is gone");
    }

    #[test]
    fn a_computed_counter_is_one() {
        struct Done;
        impl Collect for Done {
            fn collect(&self) -> Vec<Sample> {
                vec![Sample { definition: &DONE, labels: vec![("namespace", "shop".to_owned())], value: 3.0 }]
            }
        }
        let (registry, page) = prometheus().unwrap();
        let done = Arc::new(Done);
        registry.collect_from(&done);
        let lines = lines(&page, "vdbi_done");
        assert_eq!(
            lines[1..],
            ["# TYPE vdbi_done_count_success counter", r#"vdbi_done_count_success{namespace="shop"} 3"#]
        );
    }

    #[test]
    fn the_process_itself_is_measured() {
        let (_registry, page) = prometheus().unwrap();
        let lines = lines(&page, "process_open_fds");
        assert_eq!(lines[1], "# TYPE process_open_fds gauge");
        assert!(lines[2].strip_prefix("process_open_fds ").unwrap().parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn two_pages_of_one_process_share_nothing() {
        let (registry, page) = prometheus().unwrap();
        let (_other_registry, other_page) = prometheus().unwrap();
        registry.counter(&DONE, &[("namespace", "team-a")]).increment(1);
        assert_eq!(lines(&page, "vdbi_done").len(), 3);
        assert!(lines(&other_page, "vdbi_done").is_empty());
    }
}
