//! What stands in a pod for a secret until the node puts that in its place. The format is the Go product's.
//!
//! ```
//! use vdbi_core::placeholder::Placeholder;
//!
//! let placeholder = Placeholder::random();
//! let uri = format!("postgresql://app:{placeholder}@db/shop");
//! let (range, found) = Placeholder::find_all(&uri).next().unwrap();
//! assert_eq!(found, placeholder);
//! assert_eq!(uri[range].parse(), Ok(placeholder));
//! ```

use std::{fmt, ops::Range, str::FromStr};

use thiserror::Error;

/// What every placeholder begins with. Text that contains this and no whole placeholder is a damaged one.
pub const PREFIX: &str = "__VDBI_PH_";

/// What every placeholder ends with.
pub const SUFFIX: &str = "___";

/// The length of a placeholder in bytes.
pub const LENGTH: usize = PREFIX.len() + 2 * BYTES + SUFFIX.len();

const BYTES: usize = 32;

/// Stands for one half of one pod's credential, the user's name or the password: `__VDBI_PH_`, 64 lower-case hexadecimal digits,
/// `___`. It says nothing about what it stands for, and it cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placeholder([u8; BYTES]);

/// A text is no placeholder.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a placeholder is {PREFIX}, 64 lower-case hexadecimal digits and {SUFFIX}")]
pub struct NotAPlaceholder;

impl Placeholder {
    /// A new one, from the process's cryptographic random number generator.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Every placeholder in a text and where it stands, in order.
    pub fn find_all(text: &str) -> impl Iterator<Item = (Range<usize>, Self)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let start = from + text[from..].find(PREFIX)?;
                let range = start..start + LENGTH;
                if let Some(found) = text.get(range.clone()).and_then(|text| text.parse().ok()) {
                    from = range.end;
                    return Some((range, found));
                }
                // Not past the whole prefix: its last character may be the next one's first.
                from = start + 1;
            }
        })
    }
}

impl FromStr for Placeholder {
    type Err = NotAPlaceholder;

    fn from_str(text: &str) -> Result<Self, NotAPlaceholder> {
        let digits =
            text.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).ok_or(NotAPlaceholder)?;
        if digits.len() != 2 * BYTES {
            return Err(NotAPlaceholder);
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = 16 * digit(pair[0])? + digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// Lower case only: one placeholder has one text.
fn digit(character: u8) -> Result<u8, NotAPlaceholder> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(NotAPlaceholder),
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(SUFFIX)
    }
}

impl fmt::Debug for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_placeholder_looks_as_the_go_product_writes_it() {
        let text = format!("__VDBI_PH_{}___", "0a".repeat(32));
        assert_eq!(text.len(), 77);
        assert_eq!(LENGTH, 77);
        assert_eq!(text.parse::<Placeholder>().unwrap().to_string(), text);
    }

    #[test]
    fn two_placeholders_differ() {
        assert_ne!(Placeholder::random(), Placeholder::random());
    }

    #[test]
    fn what_is_not_exactly_a_placeholder_is_none() {
        let digits = "0a".repeat(32);
        for text in [
            String::new(),
            format!("__VDBI_PH_{}___", digits.to_uppercase()),
            format!("__VDBI_PH_{digits}__"),
            format!("__VDBI_PH_{digits}0___"),
            format!("__VDBI_PH_{}___", &digits[1..]),
            format!(" __VDBI_PH_{digits}___"),
            format!("__VDBI_PH_{}é___", &digits[2..]),
        ] {
            assert_eq!(text.parse::<Placeholder>(), Err(NotAPlaceholder), "{text}");
        }
    }

    #[test]
    fn a_damaged_placeholder_does_not_hide_the_next_one() {
        let whole = Placeholder::random();
        let text = format!("__VDBI_PH_é___{PREFIX}{whole}_{whole}__VDBI_PH{whole}");
        let found: Vec<_> = Placeholder::find_all(&text)
            .map(|(range, found)| (text[range] == found.to_string(), found))
            .collect();
        assert_eq!(found, [(true, whole); 3]);
    }

    proptest! {
        #[test]
        fn parsing_undoes_printing(bytes in any::<[u8; BYTES]>()) {
            let placeholder = Placeholder(bytes);
            prop_assert_eq!(placeholder.to_string().len(), LENGTH);
            prop_assert_eq!(placeholder.to_string().parse(), Ok(placeholder));
        }

        #[test]
        fn every_placeholder_of_a_text_is_found(
            around in prop::collection::vec("[_a-z0-9é/:@]{0,12}", 1..5),
            bytes in any::<[u8; BYTES]>(),
        ) {
            let placeholder = Placeholder(bytes);
            let text = around.join(&placeholder.to_string());
            let found: Vec<_> = Placeholder::find_all(&text).collect();
            prop_assert_eq!(found.len(), around.len() - 1);
            for (range, found) in found {
                prop_assert_eq!(found, placeholder);
                prop_assert_eq!(&text[range], placeholder.to_string());
            }
        }

        #[test]
        fn no_text_breaks_the_search(text in "(__VDBI_PH_|_|[0-9a-f]{64}|é|___){0,12}") {
            for (range, found) in Placeholder::find_all(&text) {
                prop_assert_eq!(&text[range], found.to_string());
            }
        }
    }
}
