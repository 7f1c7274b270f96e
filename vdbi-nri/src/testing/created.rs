//! What a plugin has made of a container.

use std::{collections::HashSet, fmt};

use crate::{
    proto::nri,
    stub::{Container, Mount, convert::REMOVAL},
};

/// What a plugin answered about a container: its adjustment as it came over the wire.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// The variables to set, in the answer's order.
    pub env: Vec<(String, String)>,
    /// The destinations of the mounts to remove.
    pub removed_mounts: Vec<String>,
    /// The mounts to add or replace.
    pub mounts: Vec<Mount>,
}

impl Created {
    /// The container as the runtime would create it. As there, the first of several variables of one name is replaced, and the last
    /// one counts.
    pub fn apply(&self, container: &Container) -> Container {
        let mut container = container.clone();
        for (name, value) in &self.env {
            let line = format!("{name}={value}");
            let is_it = |line: &&mut String| line.split_once('=').is_some_and(|(other, _)| other == name);
            match container.env.iter_mut().find(is_it) {
                Some(earlier) => *earlier = line,
                None => container.env.push(line),
            }
        }
        let replaced: HashSet<&String> = self.mounts.iter().map(|mount| &mount.destination).collect();
        container.mounts.retain(|mount| {
            !self.removed_mounts.contains(&mount.destination) && !replaced.contains(&mount.destination)
        });
        container.mounts.extend(self.mounts.iter().cloned());
        container
    }
}

impl From<nri::ContainerAdjustment> for Created {
    fn from(adjustment: nri::ContainerAdjustment) -> Self {
        let mut created = Self::default();
        for mount in adjustment.mounts.into_iter().map(Mount::from) {
            match mount.destination.strip_prefix(REMOVAL) {
                Some(destination) => created.removed_mounts.push(destination.to_owned()),
                None => created.mounts.push(mount),
            }
        }
        created.env = adjustment.env.into_iter().map(|variable| (variable.key, variable.value)).collect();
        created
    }
}

/// Without values.
impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Created")
            .field("env", &names)
            .field("removed_mounts", &self.removed_mounts)
            .field("mounts", &self.mounts)
            .finish()
    }
}
