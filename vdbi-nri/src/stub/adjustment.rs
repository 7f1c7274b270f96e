//! What a plugin changes about a container.

use vdbi_core::secret::Secret;

use super::{Mount, Refused};

/// What to change about a container that is being created. The default changes nothing.
///
/// # What NRI makes of it
///
/// - A variable that occurs twice in the container is replaced only at its first place, and the last one counts. Whoever has to
///   replace such a variable can only refuse.
/// - NRI 0.6 (containerd 1.7 up to 1.7.26) ignores the removal of a mount that nothing takes the place of: [`set_mount`] at the same
///   destination instead.
/// - A variable or mount that another plugin has set already makes the creation fail.
/// - All of it has to fit into 4 MiB; more is a refusal.
///
/// [`set_mount`]: Self::set_mount
#[derive(Clone, Debug, Default)]
pub struct Adjustment {
    env: Vec<(String, Secret)>,
    removed_mounts: Vec<String>,
    mounts: Vec<Mount>,
}

impl Adjustment {
    /// Sets an environment variable; the last value for a name counts.
    ///
    /// # Errors
    ///
    /// The name is empty, contains `=` or a zero character, or begins with `-`, with which NRI marks a removal.
    pub fn set_env(&mut self, name: impl Into<String>, value: impl Into<Secret>) -> Result<(), Refused> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || name.starts_with('-') || name.contains(['=', '\0']) {
            return Err(Refused::new(format!("the environment variable {name:?} cannot be set through NRI")));
        }
        // A name that is listed twice makes the creation fail.
        match self.env.iter_mut().find(|(other, _)| *other == name) {
            Some((_, earlier)) => *earlier = value,
            None => self.env.push((name, value)),
        }
        Ok(())
    }

    /// Removes the mount at this absolute path.
    pub fn remove_mount(&mut self, destination: impl Into<String>) {
        let destination = destination.into();
        if !self.removed_mounts.contains(&destination) {
            self.removed_mounts.push(destination);
        }
    }

    /// Adds a mount, or replaces the one that the container has at the same destination.
    pub fn set_mount(&mut self, mount: Mount) {
        match self.mounts.iter_mut().find(|other| other.destination == mount.destination) {
            Some(earlier) => *earlier = mount,
            None => self.mounts.push(mount),
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.env.is_empty() && self.removed_mounts.is_empty() && self.mounts.is_empty()
    }

    /// The variables to set, in the order in which they were first set.
    pub fn env(&self) -> impl ExactSizeIterator<Item = (&str, &Secret)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The destinations of the mounts to remove.
    pub fn removed_mounts(&self) -> &[String] {
        &self.removed_mounts
    }

    /// The mounts to add or replace.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nri_would_misread_is_refused() {
        for name in ["", "-PATH", "A=B", "A\0B"] {
            let mut adjustment = Adjustment::default();
            adjustment.set_env(name, Secret::new("hunter2")).unwrap_err();
            assert!(adjustment.is_empty());
        }
    }

    #[test]
    fn a_name_is_listed_once() {
        let mut adjustment = Adjustment::default();
        adjustment.set_env("A", Secret::new("1")).unwrap();
        adjustment.set_env("B", Secret::new("2")).unwrap();
        adjustment.set_env("A", Secret::new("3")).unwrap();
        let env: Vec<_> = adjustment.env().map(|(name, value)| (name, value.expose())).collect();
        assert_eq!(env, [("A", "3"), ("B", "2")]);
    }

    #[test]
    fn debug_shows_no_value() {
        let mut adjustment = Adjustment::default();
        adjustment.set_env("PASSWORD", Secret::new("hunter2")).unwrap();
        let shown = format!("{adjustment:?}");
        assert!(shown.contains("PASSWORD") && !shown.contains("hunter2"), "{shown}");
    }
}
