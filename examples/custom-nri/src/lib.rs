//! A node plugin of one's own: it gives containers the facts of their node, such as its instance type, which the downward API does not
//! have, as environment variables.
//!
//! A pod asks with the annotation [`ANNOTATION`], a list such as `zone, instance-type`; its containers get `NODE_ZONE` and
//! `NODE_INSTANCE_TYPE`. The facts are in a file on the node, a line `name=value` each, written when the node is set up. A container that
//! asks for a fact that the node does not have is not created, and an event of the pod says why.

// ANCHOR: imports
use std::{collections::BTreeMap, io, path::PathBuf};

use tokio::{fs, time::timeout_at};
use vdbi_nri::stub::{Adjustment, Container, ContainerInjector, Creation, Refused};

/// The annotation with the names of the facts that a pod asks for, separated by commas.
pub const ANNOTATION: &str = "node-facts.example.com/facts";
// ANCHOR_END: imports

// ANCHOR: plugin
/// The plugin, over the file with the node's facts.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    file: PathBuf,
}

impl NodeFacts {
    /// The file may come later, and may change: it is read for each container that asks.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    async fn read(&self) -> Result<Facts, Refused> {
        let cannot = |error: io::Error| {
            Refused::new(format!("node-facts: {} cannot be read on this node: {error}", self.file.display()))
        };
        Ok(Facts::parse(&fs::read_to_string(&self.file).await.map_err(cannot)?))
    }
}

impl ContainerInjector for NodeFacts {
    async fn create(&self, creation: Creation<'_>) -> Result<Adjustment, Refused> {
        let Some(asked) = creation.pod.annotations.get(ANNOTATION) else { return Ok(Adjustment::default()) };
        // A disk that hangs would hold up the whole node: this container can wait for another attempt of the kubelet's.
        let facts = timeout_at(creation.deadline, self.read()).await.map_err(|_| {
            Refused::new(format!("node-facts: {} could not be read in time", self.file.display()))
        })??;
        facts.adjust(asked, creation.container)
    }
}
// ANCHOR_END: plugin

// ANCHOR: decision
/// What is known of the node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    /// Reads lines `name=value`; empty ones and those that begin with `#` say nothing, and neither do those without `=`.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let facts = lines.filter_map(|line| line.split_once('='));
        Self(facts.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
    }

    /// Sets a variable for each fact that is asked for.
    ///
    /// # Errors
    ///
    /// The node does not have the fact, or the container sets the variable itself.
    pub fn adjust(&self, asked: &str, container: &Container) -> Result<Adjustment, Refused> {
        let mut adjustment = Adjustment::default();
        for name in asked.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let Some(value) = self.0.get(name) else {
                let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
                return Err(Refused::new(format!(
                    "node-facts: annotation {ANNOTATION} asks for {name}, and this node has only: {}",
                    known.join(", ")
                )));
            };
            let variable = format!("NODE_{}", name.to_ascii_uppercase().replace(['-', '.'], "_"));
            // NRI would replace it silently.
            if container.env.iter().any(|line| line.split_once('=').is_some_and(|(set, _)| set == variable)) {
                return Err(Refused::new(format!(
                    "node-facts: container {} sets {variable} itself: take it out of its env or its image, or {name} out of the \
                     annotation {ANNOTATION}",
                    container.name
                )));
            }
            adjustment.set_env(variable, value.clone())?;
        }
        Ok(adjustment)
    }
}
// ANCHOR_END: decision
