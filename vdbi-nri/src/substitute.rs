//! A container's environment with credentials in place of placeholders.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use thiserror::Error;
use vdbi_core::{
    annotation,
    placeholder::{PREFIX, Placeholder},
    secret::Secret,
};

/// Why a container is not to be created. The text reaches the pod's events: it names the variable and no value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The variable is there twice. NRI replaces the first one only, and the last one counts: the placeholder would stay. So it is where
    /// the image sets it too.
    #[error(
        "environment variable {key} is set twice and the last one holds a placeholder: set it once, and where the image sets it, \
         have the credential under another name"
    )]
    Duplicate {
        /// The variable's name.
        key: String,
    },
    /// NRI takes a name that begins with `-` as one to remove, so that it cannot be set; nor can one without a name.
    #[error(
        "environment variable {key:?} holds a placeholder, but no plugin can set a variable of this name: rename it"
    )]
    Unsettable {
        /// The variable's name.
        key: String,
    },
    /// The placeholder is not one of this pod's.
    #[error("environment variable {key} holds a placeholder that stands for no credential of this pod")]
    Unknown {
        /// The variable's name.
        key: String,
    },
    /// Something of a placeholder is left: it was cut, altered, stands in the name, or in a value that another one hides.
    #[error("environment variable {key} holds a damaged or hidden placeholder")]
    Residual {
        /// The variable's name.
        key: String,
    },
}

/// The variables of a container that change, with their new values, in order; those without a placeholder are not among them.
/// `environment` is what NRI shows of the container: `NAME=value` each, image and pod merged.
///
/// In a value that is a URL, and in the user information of one in a longer text (`scheme://user:password@host`), the credential is
/// percent-encoded; everywhere else it is put in as it is. So the application sees what it sees without placeholders.
///
/// # Errors
///
/// A [`Refusal`] when anything of a placeholder would remain, or might.
pub fn substitute<S: AsRef<str>>(
    environment: &[S],
    secrets: &HashMap<Placeholder, Secret>,
) -> Result<Vec<(String, Secret)>, Refusal> {
    let variables: Vec<(&str, &str)> =
        environment.iter().map(|line| line.as_ref().split_once('=').unwrap_or((line.as_ref(), ""))).collect();

    let mut changed = Vec::new();
    // From the end, since the last one of a name counts.
    let mut later = HashSet::new();
    let mut held = HashSet::new();
    for &(key, value) in variables.iter().rev() {
        let refusal = |refusal: fn(String) -> Refusal| Err(refusal(key.to_owned()));
        let is_last = later.insert(key);
        if !is_last && held.contains(key) {
            return refusal(|key| Refusal::Duplicate { key });
        }
        if key.contains(PREFIX) || (!is_last && value.contains(PREFIX)) {
            return refusal(|key| Refusal::Residual { key });
        }
        if !value.contains(PREFIX) {
            continue;
        }
        if key.is_empty() || key.starts_with('-') {
            return refusal(|key| Refusal::Unsettable { key });
        }
        held.insert(key);
        changed.push((key.to_owned(), filled_in(key, value, secrets)?));
    }
    changed.reverse();
    Ok(changed)
}

fn filled_in(key: &str, value: &str, secrets: &HashMap<Placeholder, Secret>) -> Result<Secret, Refusal> {
    let is_url = annotation::is_url(value);
    let mut text = String::new();
    let mut from = 0;
    for (range, placeholder) in Placeholder::find_all(value) {
        let secret = secrets.get(&placeholder).ok_or_else(|| Refusal::Unknown { key: key.to_owned() })?;
        text.push_str(&value[from..range.start]);
        if is_url || in_userinfo(value, &range) {
            text.push_str(&annotation::encode(secret.expose()));
        } else {
            text.push_str(secret.expose());
        }
        from = range.end;
    }
    text.push_str(&value[from..]);
    let text = Secret::new(text);
    // Also what came into being where texts were joined.
    if text.expose().contains(PREFIX) { Err(Refusal::Residual { key: key.to_owned() }) } else { Ok(text) }
}

/// Whether the text at `range` stands between `scheme://` and the `@` of its authority.
fn in_userinfo(value: &str, range: &Range<usize>) -> bool {
    const DELIMITER: &str = "://";
    /// Ends an authority (RFC 3986, section 3.2), or shows that there is no URL.
    const END: fn(char) -> bool = |c| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace();

    let (before, after) = (&value[..range.start], &value[range.end..]);
    let Some(delimiter) = before.rfind(DELIMITER) else {
        return false;
    };
    let has_scheme =
        before[..delimiter].ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let userinfo = &before[delimiter + DELIMITER.len()..];
    let rest_of_authority = after.split(END).next().unwrap_or_default();
    has_scheme && !userinfo.contains(END) && !userinfo.contains('@') && rest_of_authority.contains('@')
}

#[cfg(test)]
mod tests;
