//! Configuration values before they have types, and the problems that are found on the way.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    duration::parse_duration,
    keys::{KEYS, Kind, nearest},
};

/// What was set, by the key's path; everything else has its default.
#[derive(Debug, Default)]
pub(super) struct Values {
    set: BTreeMap<&'static str, String>,
    pub(super) problems: Vec<String>,
}

impl Values {
    /// Takes over a YAML document. `text` is what it was read from, to tell lines.
    pub(super) fn add_document(&mut self, document: &Value, text: &str) {
        match document {
            Value::Null => {}
            Value::Object(_) => self.add_level("", document, text),
            _ => self.problems.push("the file is no mapping of keys to values".to_owned()),
        }
    }

    fn add_level(&mut self, prefix: &str, level: &Value, text: &str) {
        for (name, value) in level.as_object().into_iter().flatten() {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let inside = format!("{path}.");
            if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                match scalar(value, key.kind) {
                    Ok(Some(value)) => drop(self.set.insert(key.path, value)),
                    // `key:` without a value is as if it were not there.
                    Ok(None) => {}
                    Err(expected) => self.problems.push(format!("{path}: expected {expected}")),
                }
            } else if KEYS.iter().any(|key| key.path.starts_with(&inside)) {
                match value {
                    Value::Null => {}
                    Value::Object(_) => self.add_level(&path, value, text),
                    _ => self.problems.push(format!("{path}: expected keys below it")),
                }
            } else {
                let nearest = nearest(&path, KEYS.iter().map(|key| key.path.to_owned()));
                let line = line_of(name, text).map_or_else(String::new, |line| format!(" (line {line})"));
                self.problems.push(format!("unknown key {path}{line}: did you mean {nearest}?"));
            }
        }
    }

    /// Sets one value over what the file says.
    pub(super) fn set(&mut self, path: &'static str, value: String) {
        self.set.insert(path, value);
    }

    pub(super) fn is_set(&self, path: &str) -> bool {
        self.set.contains_key(path)
    }

    pub(super) fn text(&self, path: &str) -> String {
        let default = || KEYS.iter().find(|key| key.path == path).map_or("", |key| key.default).to_owned();
        self.set.get(path).cloned().unwrap_or_else(default)
    }

    pub(super) fn optional(&self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let text = self.text(path);
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn bool(&mut self, path: &str) -> bool {
        match self.text(path).to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => true,
            "false" | "0" | "f" => false,
            text => {
                self.problems.push(format!("{path}: {text:?} is neither true nor false"));
                false
            }
        }
    }

    pub(super) fn duration(&mut self, path: &str) -> Duration {
        self.duration_of_at_least(path, Duration::ZERO)
    }

    /// A duration that something is waited for or repeated after.
    pub(super) fn positive_duration(&mut self, path: &str) -> Duration {
        self.duration_of_at_least(path, Duration::from_nanos(1))
    }

    fn duration_of_at_least(&mut self, path: &str, least: Duration) -> Duration {
        match parse_duration(&self.text(path)) {
            Ok(duration) if duration >= least => return duration,
            Ok(_) => self.problems.push(format!("{path}: it has to be longer than 0")),
            Err(error) => self.problems.push(format!("{path}: {error}")),
        }
        Duration::ZERO
    }

    pub(super) fn number<T: FromStr<Err: Display> + Default + PartialOrd + Display>(
        &mut self,
        path: &str,
        least: T,
        most: T,
    ) -> T {
        let text = self.text(path);
        match text.trim().parse::<T>() {
            Ok(number) if number >= least && number <= most => number,
            Ok(number) => {
                self.problems.push(format!("{path}: {number} is not between {least} and {most}"));
                T::default()
            }
            Err(error) => {
                self.problems.push(format!("{path}: {text:?}: {error}"));
                T::default()
            }
        }
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, path: &str, fallback: T) -> T {
        let text = self.text(path);
        text.trim().parse().unwrap_or_else(|error| {
            self.problems.push(format!("{path}: {text:?}: {error}"));
            fallback
        })
    }

    /// A time, if it is set.
    pub(super) fn time(&mut self, path: &str) -> Option<Timestamp> {
        let text = self.optional(path)?;
        text.trim()
            .parse()
            .map_err(|_| {
                self.problems
                    .push(format!("{path}: {text:?} is no time in RFC 3339, such as 2027-01-31T12:00:00Z"));
            })
            .ok()
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&mut self, path: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(path);
        let chosen = choices.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.problems.push(format!("{path}: {text:?} is none of {}", words.join(", ")));
        }
        chosen.map(|&(_, value)| value)
    }

    pub(super) fn require(&mut self, path: &str) {
        if self.text(path).trim().is_empty() {
            self.problems.push(format!("{path}: it is required"));
        }
    }
}

/// A YAML value as the text that an environment variable would hold.
fn scalar(value: &Value, kind: Kind) -> Result<Option<String>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Bool(flag) if kind == Kind::Bool || kind == Kind::Text => Ok(Some(flag.to_string())),
        Value::Number(number) if !matches!(kind, Kind::Bool | Kind::List) => Ok(Some(number.to_string())),
        Value::Array(items) if kind == Kind::List => {
            let items: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            items.map(|items| Some(items.join(","))).ok_or("a list of texts")
        }
        _ => Err(match kind {
            Kind::Text | Kind::Address => "a text",
            Kind::Bool => "true or false",
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
            Kind::Duration => "a duration such as 90s",
            Kind::List => "a list of texts",
        }),
    }
}

fn line_of(name: &str, text: &str) -> Option<usize> {
    let is_key = |line: &str| {
        line.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    text.lines().position(is_key).map(|index| index + 1)
}
