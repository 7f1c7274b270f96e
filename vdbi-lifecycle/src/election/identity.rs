//! Who competes.

use std::{env, fmt};

use rand::RngCore;

/// One run of one pod's container: `<pod>_<pod uid>_<random>`. What competes again after a restart of its container has
/// another random part, and may take over from itself at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    text: String,
    /// `<pod>_<pod uid>_`, where both are known.
    pod: Option<String>,
}

impl Identity {
    /// Of the pod with this name; a random part is added. Without [`with_uid`](Self::with_uid) it counts as another pod every time.
    pub fn new(pod: impl Into<String>) -> Self {
        Self::of(pod.into(), "")
    }

    /// Of the pod with this uid too: it knows what an earlier run of the same pod's container left.
    ///
    /// ```
    /// use vdbi_lifecycle::election::Identity;
    ///
    /// let identity = Identity::new("renewer-0").with_uid("0b6c3a5e");
    /// assert!(identity.as_str().starts_with("renewer-0_0b6c3a5e_"));
    /// ```
    #[must_use]
    pub fn with_uid(self, uid: impl AsRef<str>) -> Self {
        Self::of(self.name, uid.as_ref())
    }

    fn of(name: String, uid: &str) -> Self {
        let prefix = format!("{name}_{uid}_");
        let text = format!("{prefix}{}", random());
        let pod = (!name.is_empty() && !uid.is_empty()).then_some(prefix);
        Self { name, text, pod }
    }

    /// From `POD_NAME` and `POD_UID`, which the downward API sets. Without them, the host's name and a random uid.
    pub fn from_env() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let pod = variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_else(|| "vdbi".into());
        Self::of(pod, &variable("POD_UID").unwrap_or_else(random))
    }

    /// As it is written into the Lease.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `holder` is this or an earlier run of the same pod's container.
    pub(crate) fn is_same_pod(&self, holder: &str) -> bool {
        holder == self.text || self.pod.as_ref().is_some_and(|pod| holder.starts_with(pod.as_str()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn random() -> String {
    format!("{:016x}", rand::rng().next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_container_is_the_same_pod_with_another_identity() {
        let (before, after) =
            (Identity::new("renewer-0").with_uid("u1"), Identity::new("renewer-0").with_uid("u1"));
        assert_ne!(before, after);
        assert!(before.to_string().starts_with("renewer-0_u1_"));
        assert!(after.is_same_pod(before.as_str()));
    }

    #[test]
    fn another_uid_is_another_pod() {
        let other = Identity::new("renewer-0").with_uid("u1");
        assert!(!Identity::new("renewer-0").with_uid("u2").is_same_pod(other.as_str()));
        assert!(!Identity::new("renewer-0").is_same_pod(Identity::new("renewer-0").as_str()));
    }
}
