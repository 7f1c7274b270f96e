//! Metrics: declared once per crate, registered explicitly.
//!
//! There is no global recorder: whoever assembles a component gives it a [`Registry`], so that two replicas in one process,
//! as in the quickstart and in tests, keep their figures apart.
//!
//! ```
//! use vdbi_core::metrics::{Definition, Kind, Registry};
//!
//! const ROTATED: Definition = Definition {
//!     name: "vdbi_example_rotated_total",
//!     kind: Kind::Counter,
//!     unit: None,
//!     labels: &["result"],
//!     help: "Things rotated, by result: done, failed.",
//! };
//! // With the feature `admin`, `vdbi_core::admin::prometheus` gives one with a page for Prometheus.
//! let registry = Registry::disabled();
//! registry.counter(&ROTATED, &[("result", "done")]).increment(1);
//! ```

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, NoopRecorder, Recorder, Unit};

/// What a metric is, as Prometheus' types of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric, as `docs/metrics.md` lists it. It is written as a constant of all its parts: one without a unit or labels says so.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The name with its prefix `vdbi_`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The unit, where it has one.
    pub unit: Option<Unit>,
    /// The label names. Values come from enums and configuration, never from what a pod's author writes.
    pub labels: &'static [&'static str],
    /// One line for the reference and for the scrape page.
    pub help: &'static str,
}

/// Where a component's metrics go. Clones share it.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    recorder: Arc<dyn Recorder + Send + Sync>,
    described: Mutex<HashSet<&'static str>>,
    collectors: Mutex<Vec<Weak<dyn Collect>>>,
}

/// Gauges and counters that are computed when somebody looks, and that have no series while there is nothing to tell.
#[diagnostic::on_unimplemented(
    message = "`{Self}` tells no samples",
    note = "implement `vdbi_core::metrics::Collect`, and give the registry an `Arc` of it"
)]
pub trait Collect: Send + Sync {
    /// What there is to tell now. It must neither block nor perform I/O.
    fn collect(&self) -> Vec<Sample>;
}

/// The value of one computed series.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The gauge or counter. No other metric has its name.
    pub definition: &'static Definition,
    /// Its labels, as the definition names them.
    pub labels: Vec<(&'static str, String)>,
    /// Its value; of a counter, a whole number.
    pub value: f64,
}

const METADATA: Metadata<'static> = Metadata::new("vdbi", Level::INFO, None);

impl Registry {
    /// Over any recorder.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Self(Arc::new(Shared { recorder, described: Mutex::default(), collectors: Mutex::default() }))
    }

    /// Metrics that go nowhere.
    pub fn disabled() -> Self {
        Self::new(Arc::new(NoopRecorder))
    }

    /// The counter, at zero until it is first incremented. `labels` are those of the definition, in its order; a debug build panics
    /// on others, and on a definition of another kind.
    pub fn counter(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(definition.kind, Kind::Counter, "{}", definition.name);
        self.describe(definition);
        self.0.recorder.register_counter(&key(definition, labels), &METADATA)
    }

    /// The gauge, in the definition's unit; `labels` as those of [`counter`](Self::counter).
    pub fn gauge(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(definition.kind, Kind::Gauge, "{}", definition.name);
        self.describe(definition);
        self.0.recorder.register_gauge(&key(definition, labels), &METADATA)
    }

    /// The histogram, in the definition's unit; `labels` as those of [`counter`](Self::counter).
    pub fn histogram(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(definition.kind, Kind::Histogram, "{}", definition.name);
        self.describe(definition);
        self.0.recorder.register_histogram(&key(definition, labels), &METADATA)
    }

    /// Once each: series of the same metric are asked for again and again.
    fn describe(&self, definition: &Definition) {
        let mut described = self.0.described.lock().unwrap_or_else(PoisonError::into_inner);
        if !described.insert(definition.name) {
            return;
        }
        let (name, unit, help) = (definition.name.into(), definition.unit, definition.help.into());
        match definition.kind {
            Kind::Counter => self.0.recorder.describe_counter(name, unit, help),
            Kind::Gauge => self.0.recorder.describe_gauge(name, unit, help),
            Kind::Histogram => self.0.recorder.describe_histogram(name, unit, help),
        }
    }

    /// Has these series computed at each scrape, for as long as somebody else keeps the collector.
    pub fn collect_from(&self, collector: &Arc<impl Collect + 'static>) {
        let collector: Arc<dyn Collect> = collector.clone();
        self.collectors().push(Arc::downgrade(&collector));
    }

    /// Computes the series of [`collect_from`](Self::collect_from). The metrics page shows them; whoever brings a recorder of
    /// its own has to ask for them.
    pub fn samples(&self) -> Vec<Sample> {
        let collectors: Vec<_> = {
            let mut collectors = self.collectors();
            collectors.retain(|collector| collector.strong_count() > 0);
            collectors.iter().filter_map(Weak::upgrade).collect()
        };
        collectors.iter().flat_map(|collector| collector.collect()).collect()
    }

    fn collectors(&self) -> MutexGuard<'_, Vec<Weak<dyn Collect>>> {
        self.0.collectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

fn key(definition: &Definition, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(
        labels.iter().map(|(name, _)| *name).eq(definition.labels.iter().copied()),
        "{} has the labels {:?}",
        definition.name,
        definition.labels
    );
    let labels: Vec<Label> = labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect();
    Key::from_parts(definition.name, labels)
}
