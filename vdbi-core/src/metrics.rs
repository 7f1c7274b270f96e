//! Metrics: declared once per crate, registered explicitly.
//!
//! There is no global recorder: whoever assembles a component gives it a [`Registry`], so that two replicas in one process,
//! as in the quickstart and in tests, keep their figures apart.

use std::{fmt, sync::Arc};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, NoopRecorder, Recorder, Unit};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric, as `docs/metrics.md` lists it.
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

/// Where a component's metrics go.
#[derive(Clone)]
pub struct Registry(Arc<dyn Recorder + Send + Sync>);

const METADATA: Metadata<'static> = Metadata::new("vdbi", Level::INFO, None);

impl Registry {
    /// Over any recorder.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Self(recorder)
    }

    /// Metrics that go nowhere.
    pub fn disabled() -> Self {
        Self(Arc::new(NoopRecorder))
    }

    /// The counter, at zero until it is first incremented.
    pub fn counter(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Counter {
        debug_assert_eq!(definition.kind, Kind::Counter, "{}", definition.name);
        let (unit, help) = (definition.unit, definition.help.into());
        self.0.describe_counter(definition.name.into(), unit, help);
        self.0.register_counter(&key(definition, labels), &METADATA)
    }

    /// The gauge.
    pub fn gauge(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Gauge {
        debug_assert_eq!(definition.kind, Kind::Gauge, "{}", definition.name);
        let (unit, help) = (definition.unit, definition.help.into());
        self.0.describe_gauge(definition.name.into(), unit, help);
        self.0.register_gauge(&key(definition, labels), &METADATA)
    }

    /// The histogram.
    pub fn histogram(&self, definition: &Definition, labels: &[(&'static str, &str)]) -> Histogram {
        debug_assert_eq!(definition.kind, Kind::Histogram, "{}", definition.name);
        let (unit, help) = (definition.unit, definition.help.into());
        self.0.describe_histogram(definition.name.into(), unit, help);
        self.0.register_histogram(&key(definition, labels), &METADATA)
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
