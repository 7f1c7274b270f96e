//! Names and mounts, parsed before they become part of a request's path.

use std::fmt;

use thiserror::Error;

use crate::credential::SourceError;

/// A part of a path that stays where it is put: no `..`, no query, nothing that a server or a proxy decodes again. The
/// names come from annotations, so from whoever may create a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(String);

/// Why a text is no [`Path`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum InvalidPath {
    #[error("it is empty, or has an empty part between slashes")]
    Empty,
    #[error("\".\" and \"..\" are no names")]
    Dots,
    #[error("it contains a slash")]
    Slash,
    #[error("it contains a space, a control character, a character beyond ASCII, or one of % ? # \\")]
    Character,
}

impl Path {
    /// One name.
    pub(super) fn name(text: &str) -> Result<Self, InvalidPath> {
        if text.contains('/') {
            return Err(InvalidPath::Slash);
        }
        Self::mount(text)
    }

    /// Where something is mounted: one or more names, divided by slashes.
    pub(super) fn mount(text: &str) -> Result<Self, InvalidPath> {
        let text = text.trim_matches('/');
        for part in text.split('/') {
            match part {
                "" => return Err(InvalidPath::Empty),
                "." | ".." => return Err(InvalidPath::Dots),
                _ if part.chars().any(|c| !c.is_ascii_graphic() || matches!(c, '%' | '?' | '#' | '\\')) => {
                    return Err(InvalidPath::Character);
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path from this component's configuration, with the key that it stands under.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    key: &'static str,
    path: Result<Path, InvalidPath>,
}

impl Configured {
    pub(super) fn mount(key: &'static str, text: &str) -> Self {
        Self { key, path: Path::mount(text) }
    }

    pub(super) fn name(key: &'static str, text: &str) -> Self {
        Self { key, path: Path::name(text) }
    }

    /// The path.
    ///
    /// # Errors
    ///
    /// [`SourceError::Misconfigured`] with the key to change.
    pub(super) fn get(&self) -> Result<&Path, SourceError> {
        match &self.path {
            Ok(path) => Ok(path),
            Err(reason) => Err(SourceError::Misconfigured(format!("{} cannot be used: {reason}", self.key))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        for (text, reason) in [
            ("", InvalidPath::Empty),
            ("..", InvalidPath::Dots),
            (".", InvalidPath::Dots),
            ("a/b", InvalidPath::Slash),
            ("../../sys", InvalidPath::Slash),
            ("%2e%2e", InvalidPath::Character),
            ("a?b", InvalidPath::Character),
            ("a#b", InvalidPath::Character),
            ("a\\b", InvalidPath::Character),
            ("a b", InvalidPath::Character),
            ("a\nb", InvalidPath::Character),
            ("ä", InvalidPath::Character),
        ] {
            assert_eq!(Path::name(text), Err(reason), "{text:?}");
        }
        assert_eq!(Path::name("app-1.rw_2:x@y").unwrap().as_str(), "app-1.rw_2:x@y");
    }

    #[test]
    fn a_mount_may_be_nested_and_have_slashes_around_it() {
        assert_eq!(Path::mount("/team/databases/").unwrap().as_str(), "team/databases");
        assert_eq!(Path::mount("team//databases"), Err(InvalidPath::Empty));
        assert_eq!(Path::mount("databases/../sys"), Err(InvalidPath::Dots));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let error = Configured::mount("vaultAuthPath", "a?b").get().unwrap_err();
        assert!(
            matches!(&error, SourceError::Misconfigured(text) if text.starts_with("vaultAuthPath ")),
            "{error}"
        );
    }
}
