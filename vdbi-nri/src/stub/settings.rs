//! How a plugin presents itself, and where.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

/// Where containerd listens for plugins by default.
const SOCKET: &str = "/var/run/nri/nri.sock";

/// containerd's defaults, of 1.7 as of 2.4.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Who the plugin is and where containerd is: made by [`Settings::new`], and changed field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    name: String,
    index: String,
    /// containerd's NRI socket; by default `/var/run/nri/nri.sock`.
    pub socket: PathBuf,
    /// containerd's `plugin_registration_timeout`, for as long as it has not told it; 1.7 never does. By default 5 s, as there.
    pub registration_timeout: Duration,
    /// containerd's `plugin_request_timeout`, likewise; by default 2 s. Each request says how long its answer is waited for, so that
    /// this matters only for one that does not.
    pub request_timeout: Duration,
}

/// containerd would not register such a plugin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// It has no name.
    #[error("an NRI plugin needs a name")]
    NoName,
    /// Its index is none.
    #[error("the index of an NRI plugin is two digits, \"00\" to \"99\", not {0:?}")]
    Index(String),
}

impl Settings {
    /// The plugin's name, and its index: two digits, by which containerd sorts the plugins it asks.
    ///
    /// # Errors
    ///
    /// An empty name; an index that is not `00` to `99`.
    pub fn new(name: impl Into<String>, index: impl Into<String>) -> Result<Self, InvalidSettings> {
        let (name, index) = (name.into(), index.into());
        if name.is_empty() {
            return Err(InvalidSettings::NoName);
        }
        if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidSettings::Index(index));
        }
        Ok(Self {
            name,
            index,
            socket: SOCKET.into(),
            registration_timeout: REGISTRATION_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
        })
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index.
    pub fn index(&self) -> &str {
        &self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_two_digits() {
        for index in ["00", "10", "99"] {
            assert_eq!(Settings::new("vdbi", index).unwrap().index(), index);
        }
        for index in ["", "1", "100", "1a", "-1", "٣٣", "+1"] {
            let error = Settings::new("vdbi", index).unwrap_err();
            assert_eq!(error, InvalidSettings::Index(index.to_owned()));
        }
    }

    #[test]
    fn a_plugin_has_a_name() {
        assert_eq!(Settings::new("", "10"), Err(InvalidSettings::NoName));
    }
}
