//! How the webhook knows its own work.

use std::{fmt::Write, time::Duration};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// How long an API server may take from one invocation to the next, and clocks of replicas may differ.
const LIFETIME: Duration = Duration::from_secs(300);

/// Bytes of the digest that are kept.
const DIGEST: usize = 16;

/// The mark of a pod: `<seconds since 1970>.<digest>`.
pub(super) fn mark<'a>(now: Timestamp, ids: &'a str, values: impl Iterator<Item = &'a str>) -> String {
    let seconds = now.as_second();
    format!("{seconds}.{}", digest(seconds, ids, values))
}

/// What a mark says about the pod that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// This pod was mutated a moment ago.
    Mutated,
    /// It is a copy of a pod that was mutated earlier.
    Copy,
    /// The mark does not belong to these ids and values.
    Foreign,
}

/// Compares a mark with the ids and values that it is found beside.
pub(super) fn examine<'a>(
    mark: &str,
    now: Timestamp,
    ids: &'a str,
    values: impl Iterator<Item = &'a str>,
) -> Finding {
    let Some((seconds, found)) = mark.split_once('.') else { return Finding::Foreign };
    let Ok(seconds) = seconds.parse::<i64>() else { return Finding::Foreign };
    if digest(seconds, ids, values) != found {
        return Finding::Foreign;
    }
    if now.as_second().abs_diff(seconds) <= LIFETIME.as_secs() { Finding::Mutated } else { Finding::Copy }
}

fn digest<'a>(seconds: i64, ids: &'a str, values: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    hash.update(seconds.to_be_bytes());
    for text in std::iter::once(ids).chain(values) {
        // With its length, so that no two lists of texts are the same bytes.
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(DIGEST).fold(String::new(), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&str; 2] = ["v-app", "hunter2"];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_mark_is_known_for_five_minutes_and_belongs_to_a_copy_afterwards() {
        let mark = mark(at(1_000), "id", VALUES.into_iter());
        let examine = |now, ids| examine(&mark, at(now), ids, VALUES.into_iter());
        assert_eq!(examine(1_300, "id"), Finding::Mutated);
        assert_eq!(examine(700, "id"), Finding::Mutated);
        assert_eq!(examine(1_301, "id"), Finding::Copy);
        assert_eq!(examine(1_000, "another"), Finding::Foreign);
    }

    #[test]
    fn a_mark_does_not_fit_other_values_or_another_time() {
        let mark = mark(at(1_000), "id", VALUES.into_iter());
        let moved = mark.replacen("1000", "1001", 1);
        for (mark, values) in [
            (&*mark, ["v-app", "hunter3"]),
            (&mark, ["v-apphunter2", ""]),
            (&moved, VALUES),
            ("", VALUES),
            ("1000.", VALUES),
            ("x.y", VALUES),
        ] {
            assert_eq!(examine(mark, at(1_000), "id", values.into_iter()), Finding::Foreign, "{mark}");
        }
    }
}
