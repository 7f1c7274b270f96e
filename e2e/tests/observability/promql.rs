//! Which metrics and labels an expression names. It knows as much of PromQL as our own expressions need.

use std::collections::BTreeSet;

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Metrics, each with the labels that its selector compares.
    pub(crate) selectors: Vec<(String, BTreeSet<String>)>,
    /// Labels by which something is grouped, matched or written.
    pub(crate) labels: BTreeSet<String>,
}

/// Words after which a list of labels follows.
const LISTS: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

pub(crate) fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let tokens = tokens(expression);
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let Token::Word(word) = token else { continue };
        if LISTS.contains(&word.as_str()) {
            let list;
            (list, rest) = enclosed(rest, '(', ')');
            names.labels.extend(words(list).map(str::to_owned));
        } else if word == "ALERTS" || word.starts_with("vdbi") || word.starts_with("process_") {
            let matchers;
            (matchers, rest) = enclosed(rest, '{', '}');
            names.selectors.push((word.clone(), words(matchers).map(str::to_owned).collect()));
        }
    }
    names
}

fn words(tokens: &[Token]) -> impl Iterator<Item = &str> {
    tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.as_str()),
        _ => None,
    })
}

/// What is between two signs, if the first comes next, and what follows.
fn enclosed(tokens: &[Token], open: char, close: char) -> (&[Token], &[Token]) {
    match tokens.split_first() {
        Some((first, rest)) if *first == Token::Sign(open) => {
            let end = rest.iter().position(|token| *token == Token::Sign(close)).expect("it is closed");
            (&rest[..end], &rest[end + 1..])
        }
        _ => (&[], tokens),
    }
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        if first == '"' {
            tokens.push(Token::Text(rest.by_ref().take_while(|next| *next != '"').collect()));
        } else if first.is_ascii_alphanumeric() || first == '_' || first == '$' {
            let mut word = first.to_string();
            while let Some(next) =
                rest.next_if(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | ':'))
            {
                word.push(next);
            }
            tokens.push(Token::Word(word));
        } else if !first.is_whitespace() {
            tokens.push(Token::Sign(first));
        }
    }
    tokens
}

#[test]
fn metrics_labels_and_lists_are_told_from_functions_and_values() {
    let found = names(
        r#"histogram_quantile(0.99, sum by (le, release) (rate(vdbi_a_bucket{phase="by (x)",ns=~"a|vdbi_b"}[5m:1m])))
        / on (instance) group_left (pod) vdbi:c:rate5m offset 10m > 1e3"#,
    );
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let selectors =
        vec![("vdbi_a_bucket".to_owned(), set(&["phase", "ns"])), ("vdbi:c:rate5m".to_owned(), set(&[]))];
    assert_eq!(found, Names { selectors, labels: set(&["le", "release", "instance", "pod"]) });
}
