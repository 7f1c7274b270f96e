//! Which runtime asks.

/// The container runtime at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Runtime {
    /// Its name: `containerd`.
    pub name: String,
    /// Its version as it says it: `1.7.24~ds1`, `v2.2.9`.
    pub version: String,
}

impl Runtime {
    /// A containerd of a version, as it says it.
    ///
    /// ```
    /// use vdbi_nri::stub::Runtime;
    ///
    /// assert!(Runtime::containerd("v2.2.9").at_least(2, 2, 0));
    /// assert!(!Runtime::containerd("1.7.24~ds1").at_least(1, 7, 27));
    /// ```
    pub fn containerd(version: impl Into<String>) -> Self {
        Self { name: "containerd".to_owned(), version: version.into() }
    }

    /// Whether its version is this one or a later one. What follows the three numbers does not count, a missing number is 0, and
    /// a version without any number is older than all.
    pub fn at_least(&self, major: u64, minor: u64, patch: u64) -> bool {
        numbers(&self.version).is_some_and(|numbers| numbers >= (major, minor, patch))
    }

    /// Whether it is known to understand the event that validates adjustments, and would refuse a plugin that asks for it
    /// otherwise.
    pub(super) fn validates(&self) -> bool {
        self.name == "containerd" && self.at_least(2, 2, 0)
    }
}

fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let mut rest = version.strip_prefix('v').unwrap_or(version);
    let mut numbers = [0; 3];
    for (position, number) in numbers.iter_mut().enumerate() {
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        match rest[..end].parse() {
            Ok(parsed) => *number = parsed,
            Err(_) if position == 0 => return None,
            Err(_) => break,
        }
        match rest[end..].strip_prefix('.') {
            Some(after) => rest = after,
            None => break,
        }
    }
    let [major, minor, patch] = numbers;
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(version: &str) -> Runtime {
        Runtime { name: "containerd".to_owned(), version: version.to_owned() }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, numbers) in [
            ("1.7.24~ds1", (1, 7, 24)),
            ("2.1.9+unknown", (2, 1, 9)),
            ("v2.2.9", (2, 2, 9)),
            ("2.2.0-rc.1", (2, 2, 0)),
            ("v2.10", (2, 10, 0)),
            ("3", (3, 0, 0)),
        ] {
            let (major, minor, patch) = numbers;
            assert!(runtime(version).at_least(major, minor, patch), "{version}");
            assert!(!runtime(version).at_least(major, minor, patch + 1), "{version}");
            assert!(!runtime(version).at_least(major, minor + 1, 0), "{version}");
        }
    }

    #[test]
    fn a_version_without_a_number_is_older_than_all() {
        for version in ["", "v", "unknown", "99999999999999999999999.1.0"] {
            assert!(!runtime(version).at_least(0, 0, 0), "{version}");
        }
    }

    #[test]
    fn only_containerd_from_2_2_on_is_known_to_validate() {
        assert!(runtime("2.2.0").validates());
        assert!(!runtime("2.1.9").validates());
        assert!(!Runtime { name: "cri-o".to_owned(), version: "2.2.0".to_owned() }.validates());
    }
}
