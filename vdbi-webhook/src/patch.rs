//! JSON patches (RFC 6902) that only add.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A JSON patch of `add` operations. Its `Debug` shows paths and no values, which hold credentials.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Patch(Vec<Operation>);

#[derive(Serialize)]
struct Operation {
    op: &'static str,
    path: String,
    value: Value,
}

impl Patch {
    /// Adds `value` at a path given by its unescaped segments.
    pub fn add(&mut self, segments: &[&str], value: Value) {
        let path = segments.iter().map(|segment| format!("/{}", escape(segment))).collect();
        self.0.push(Operation { op: "add", path, value });
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The paths that the patch adds to.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|operation| operation.path.as_str())
    }
}

impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.paths()).finish()
    }
}

/// RFC 6901, section 3.
fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_and_tildes_in_keys_are_escaped() {
        let mut patch = Patch::default();
        patch.add(&["metadata", "annotations", "a/b~c"], Value::Null);
        assert_eq!(patch.paths().collect::<Vec<_>>(), ["/metadata/annotations/a~1b~0c"]);
    }

    #[test]
    fn debug_shows_no_values() {
        let mut patch = Patch::default();
        patch.add(&["spec"], Value::from("hunter2"));
        assert_eq!(format!("{patch:?}"), r#"["/spec"]"#);
    }
}
