//! Durations as Go writes them.

use std::time::Duration;

use thiserror::Error;

/// A text that is no duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no duration: write it like 300ms, 1.5h or 2h45m")]
pub struct InvalidDuration(String);

/// Parses the syntax of Go's `time.ParseDuration`: decimal numbers with a unit each, `ns`, `us`, `µs`, `ms`, `s`, `m` or `h`, or a
/// bare `0`. A negative duration is refused.
///
/// ```
/// # use std::time::Duration;
/// # use vdbi_core::config::parse_duration;
/// assert_eq!(parse_duration("1h30m")?, Duration::from_secs(5400));
/// assert!(parse_duration("8 days").is_err());
/// # Ok::<(), vdbi_core::config::InvalidDuration>(())
/// ```
///
/// # Errors
///
/// When it is none.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    parse(text).ok_or_else(|| InvalidDuration(text.to_owned()))
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        if !value.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let seconds = value.parse::<f64>().ok()? * seconds(unit)?;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after;
    }
    Some(total)
}

fn seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        // The micro sign, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_are_understood() {
        for (text, milliseconds) in [
            ("0", 0),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("2h45m0.5s", 9_900_500),
            ("+5s", 5_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("768h", 2_764_800_000),
            ("2000\u{b5}s", 2),
            ("3000\u{3bc}s", 3),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in
            ["", "5", "8 days", "1d", "-1s", "s", ".s", "1h 5m", "1.2.3s", "1e9s", "999999999999999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9.hmsuµn +-]{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
