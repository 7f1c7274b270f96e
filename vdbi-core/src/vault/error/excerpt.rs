//! What may be repeated of a server's error.

/// The longest part that is repeated, in characters.
const LIMIT: usize = 160;

/// Failures of a database that are worth naming even where the rest cannot be repeated.
const SYMPTOMS: [&str; 5] =
    ["connection refused", "no such host", "i/o timeout", "connection reset", "no route to host"];

/// A server's texts without what they may quote: connection strings with user and password, tokens, values. Everything from
/// the first word on that looks like one is left out; the symptom and the SQLSTATE, which follow it, are added again.
pub(in crate::vault) fn excerpt(texts: &[String]) -> String {
    let text = texts.join(" ");
    // The form of Vault's lists of errors, which mostly have one.
    let text = text.strip_prefix("1 error occurred:\n\t* ").unwrap_or(&text);
    let mut kept = String::new();
    for word in text.split_whitespace() {
        if is_suspicious(word) || kept.len() + word.len() > LIMIT {
            kept.push_str(" ..");
            break;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(word);
    }
    let symptom = SYMPTOMS.into_iter().find(|symptom| text.contains(symptom));
    for addition in symptom.map(str::to_owned).into_iter().chain(sqlstate(text)) {
        if !kept.contains(&addition) {
            kept.push(' ');
            kept.push_str(&addition);
        }
    }
    kept.trim().to_owned()
}

/// Quotes and assignments enclose values; the rest are parts of URLs and tokens.
fn is_suspicious(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    word.contains(['=', '@', '%', '"', '\'', '`', '&', '?'])
        || ["://", "password", "passwd", "secret", "hvs.", "hvb."].iter().any(|part| lower.contains(part))
        || lower.starts_with("s.")
        || lower.starts_with("b.")
        || !word.is_ascii()
}

/// PostgreSQL's code of an error, a closed list of five letters and digits.
fn sqlstate(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("SQLSTATE ")?;
    let code: String = rest.chars().take(5).collect();
    let is_code = code.len() == 5 && code.chars().all(|c| c.is_ascii_alphanumeric());
    is_code.then(|| format!("SQLSTATE {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        excerpt(&[text.to_owned()])
    }

    #[test]
    fn what_a_database_said_is_repeated_without_its_connection_string() {
        for (text, kept) in [
            (
                "unable to start transaction: failed to connect to `user=postgres password=hunter2 database=x`: dial error: \
                 connect: connection refused",
                "unable to start transaction: failed to connect to .. connection refused",
            ),
            ("cannot parse postgresql://postgres:hunter2@db/x: bad port", "cannot parse .."),
            (
                "cannot parse connection url: invalid URL escape \"%hunter2\"",
                "cannot parse connection url: invalid URL escape ..",
            ),
            (
                "1 error occurred:\n\t* ERROR: permission denied to create role (SQLSTATE 42501)\n\n",
                "ERROR: permission denied to create role (SQLSTATE 42501)",
            ),
            ("ERROR: role \"v-hunter2\" does not exist (SQLSTATE 42704)", "ERROR: role .. SQLSTATE 42704"),
            ("token hvs.hunter2 is bad", "token .."),
            ("", ""),
        ] {
            assert_eq!(of(text), kept);
        }
    }

    #[test]
    fn an_excerpt_is_short() {
        assert!(of(&"word ".repeat(1000)).len() < 200);
        assert!(of(&"x".repeat(1000)).len() < 200);
    }
}
