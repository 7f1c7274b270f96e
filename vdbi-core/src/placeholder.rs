//! What stands in a pod for a secret that only the node puts in its place. The format is the Go product's.

use std::fmt::Write;

/// How every placeholder begins.
pub const PREFIX: &str = "__VDBI_PH_";

/// How every placeholder ends.
pub const SUFFIX: &str = "___";

/// A placeholder that nobody else has: [`PREFIX`], 64 hexadecimal digits, [`SUFFIX`]. It holds no character that a URL gives
/// a meaning.
pub fn random() -> String {
    let mut placeholder = PREFIX.to_owned();
    for byte in rand::random::<[u8; 32]>() {
        // A String takes everything.
        let _ = write!(placeholder, "{byte:02x}");
    }
    placeholder + SUFFIX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_has_the_format_of_the_go_product_and_occurs_once() {
        let placeholder = random();
        assert_eq!(placeholder.len(), 77);
        let digits = placeholder.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).unwrap();
        assert!(digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{placeholder}");
        assert_ne!(placeholder, random());
    }
}
