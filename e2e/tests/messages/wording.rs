//! A message whatever its arguments are.

use std::fmt;

/// Stands for an argument.
const ARGUMENT: char = '\u{1}';

/// What is around the arguments, with single spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wording(String);

impl Wording {
    /// Of a literal in Rust, whose arguments are in braces. What it writes itself as `<name>` is as good as one.
    pub(crate) fn of_code(text: &str) -> Self {
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(char) = rest.next() {
            match (char, rest.peek()) {
                ('{', Some('{')) | ('}', Some('}')) => plain.extend(rest.next()),
                ('{', _) => {
                    while rest.next().is_some_and(|char| char != '}') {}
                    plain.push(ARGUMENT);
                }
                (char, _) => plain.push(char),
            }
        }
        Self::of_page(&plain)
    }

    /// Of a code span, whose arguments are in angle brackets.
    pub(crate) fn of_page(text: &str) -> Self {
        let mut wording = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            wording += before;
            rest = match after.split_once('>') {
                Some((name, after)) if name.starts_with(char::is_alphabetic) => {
                    wording.push(ARGUMENT);
                    after
                }
                _ => {
                    wording.push('<');
                    after
                }
            };
        }
        wording += rest;
        Self(wording.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Whether it says anything but what its arguments do.
    pub(crate) fn has_words(&self) -> bool {
        self.words() > 0
    }

    /// Whether it has to be on a page: what has one word is a name, or stands before what another message says.
    pub(crate) fn is_message(&self) -> bool {
        self.0.contains(' ') && self.words() > 1
    }

    fn words(&self) -> usize {
        self.0.split(|char: char| !char.is_alphabetic()).filter(|word| word.len() > 1).count()
    }

    /// Whether this message can read like that one. An argument is one word or none; a page writes a longer one as an argument.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        if !self.0.split(ARGUMENT).all(|piece| other.0.contains(piece)) {
            return false;
        }
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), other.0.chars().collect());
        // Which beginnings of the text the pattern so far can read like.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for char in pattern {
            let mut next = vec![false; text.len() + 1];
            for at in 0..=text.len() {
                next[at] = match char {
                    ARGUMENT => reached[at] || (at > 0 && next[at - 1] && text[at - 1] != ' '),
                    char => at > 0 && reached[at - 1] && text[at - 1] == char,
                };
            }
            reached = next;
        }
        reached[text.len()]
    }
}

impl fmt::Display for Wording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(ARGUMENT, "<..>"))
    }
}

#[test]
fn arguments_are_whatever_they_are_called() {
    let code = Wording::of_code("pod {ns}/{} gets {{user}} of `bao write <role>`: {error:#}");
    assert!(
        code.covers(&Wording::of_page(
            "pod <namespace>/<name> gets {user} of `bao write <auth role>`: <cause>"
        ))
    );
    assert!(code.covers(&Wording::of_page("pod shop/cart gets {user} of `bao write x`: y")));
    assert!(!code.covers(&Wording::of_page("pod a/b gets {user} of `bao write x`: two words")));
    assert!(!code.covers(&Wording::of_page("the pod a/b gets {user} of `bao write x`: y")));
    assert_eq!(code.to_string(), "pod <..>/<..> gets {user} of `bao write <..>`: <..>");
}

#[test]
fn what_is_hardly_more_than_arguments_is_no_message() {
    for (text, has_words, is_message) in [
        ("", false, false),
        ("{0}", false, false),
        ("{path}: {error}", false, false),
        ("database {database}: {error}", true, false),
        ("refused", true, false),
        ("it is", true, true),
    ] {
        let wording = Wording::of_code(text);
        assert_eq!((wording.has_words(), wording.is_message()), (has_words, is_message), "{text}");
    }
}
