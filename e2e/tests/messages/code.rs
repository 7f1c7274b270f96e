//! What the components can say: every literal with words in what runs. Where it stands does not matter, so that a message that is
//! given in a new way is found too. Left out is what is no message by its place: documentation, tests, what is merely logged for
//! information, and texts that are compared with what a server says.

use std::{fs, path::Path};

use proc_macro2::{Delimiter, Group, Literal, TokenStream, TokenTree};
use syn::{Item, ItemImpl, Lit};

use crate::{Message, files, wording::Wording};

const SOURCES: [&str; 10] = [
    "vdbi-core/src",
    "vdbi-webhook/src",
    "vdbi-lifecycle/src",
    "vdbi-nri/src",
    "examples/bootstrap/src",
    "examples/injector/src",
    "examples/renewer/src",
    "examples/revoker/src",
    "examples/node-plugin/src",
    "examples/vdbi/src",
];

/// Files and directories that do not run, and those whose texts are on pages of their own: metrics and configuration keys.
const LEFT_OUT: [&str; 6] = ["tests", "testing", "memory", "simulation", "metrics", "keys"];

/// Macros that say nothing is wrong, or say nothing.
const SILENT: [&str; 7] = ["trace", "debug", "info", "matches", "assert", "assert_eq", "debug_assert"];

/// Functions to which a text is given to look for it; and `ok`, a finding of the doctor's.
const SILENT_CALLS: [&str; 8] =
    ["says", "says_any", "contains", "strip_prefix", "starts_with", "ends_with", "split_once", "ok"];

/// Constants whose texts are looked for, or that are help.
const SILENT_CONSTANTS: [&str; 3] = ["UNREACHABLE", "SYMPTOMS", "USAGE"];

pub(crate) fn messages(root: &Path) -> Vec<Message> {
    let mut found = Vec::new();
    for file in SOURCES.iter().flat_map(|source| files(&root.join(source), ".rs")) {
        let below = file.strip_prefix(root).unwrap();
        let is_left_out = below.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            LEFT_OUT.contains(&name.trim_end_matches(".rs"))
        });
        if is_left_out {
            continue;
        }
        let syntax = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
        let mut reader = Reader { file: below.display().to_string(), found: &mut found };
        reader.items(&syntax.items);
    }
    found
}

struct Reader<'a> {
    file: String,
    found: &'a mut Vec<Message>,
}

impl Reader<'_> {
    fn items(&mut self, items: &[Item]) {
        for item in items.iter().filter(|item| !is_for_tests(*item)) {
            match item {
                Item::Mod(module) => {
                    let content = module.content.as_ref();
                    self.items(content.map_or(&[], |(_, items)| items));
                }
                Item::Impl(ItemImpl { items, .. }) => {
                    for item in items.iter().filter(|item| !is_for_tests(*item)) {
                        self.tokens(tokens_of(item));
                    }
                }
                item => self.tokens(tokens_of(item)),
            }
        }
    }

    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at += match &tokens[at..] {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] if hash.as_char() == '#' => {
                    self.attribute(attribute);
                    2
                }
                [TokenTree::Ident(name), TokenTree::Punct(mark), TokenTree::Group(arguments), ..]
                    if mark.as_char() == '!' =>
                {
                    self.invocation(&name.to_string(), arguments);
                    3
                }
                [TokenTree::Ident(name), TokenTree::Group(arguments), ..]
                    if arguments.delimiter() == Delimiter::Parenthesis && is_in(&SILENT_CALLS, name) =>
                {
                    2
                }
                [TokenTree::Ident(keyword), TokenTree::Ident(name), rest @ ..]
                    if *keyword == "const" && is_in(&SILENT_CONSTANTS, name) =>
                {
                    let is_end = |token: &TokenTree| is_punct(Some(token), ';');
                    2 + rest.iter().position(is_end).unwrap_or(rest.len())
                }
                [TokenTree::Literal(literal), ..] => {
                    if !is_compared(&tokens, at) {
                        self.literal(literal);
                    }
                    1
                }
                [TokenTree::Group(group), ..] => {
                    self.tokens(group.stream());
                    1
                }
                _ => 1,
            };
        }
    }

    fn attribute(&mut self, attribute: &Group) {
        let name = attribute.stream().into_iter().next();
        if matches!(name, Some(TokenTree::Ident(name)) if name == "error") {
            self.tokens(attribute.stream());
        }
    }

    fn invocation(&mut self, name: &str, arguments: &Group) {
        if SILENT.contains(&name) {
            return;
        }
        if name == "concat" {
            let parts: Vec<(usize, String)> = arguments.stream().into_iter().filter_map(text).collect();
            let whole: String = parts.iter().map(|(_, part)| part.as_str()).collect();
            return self.found(parts.first().map_or(0, |(line, _)| *line), &whole);
        }
        self.tokens(arguments.stream());
    }

    fn literal(&mut self, literal: &Literal) {
        if let Some((line, text)) = text(TokenTree::Literal(literal.clone())) {
            self.found(line, &text);
        }
    }

    fn found(&mut self, line: usize, text: &str) {
        let wording = Wording::of_code(text);
        if wording.has_words() {
            self.found.push(Message { place: format!("{}:{line}", self.file), wording });
        }
    }
}

fn tokens_of(item: &impl quote::ToTokens) -> TokenStream {
    item.to_token_stream()
}

/// Whether its attributes make it a part of tests alone.
fn is_for_tests(item: &impl quote::ToTokens) -> bool {
    let mut tokens = tokens_of(item).into_iter();
    while let (Some(TokenTree::Punct(_)), Some(TokenTree::Group(attribute))) = (tokens.next(), tokens.next())
    {
        let text: String = attribute.stream().to_string().split_whitespace().collect();
        if text.starts_with("cfg(") && text.contains("test") && !text.contains("not(") {
            return true;
        }
    }
    false
}

/// Whether the literal is a pattern, or a side of a comparison.
fn is_compared(tokens: &[TokenTree], at: usize) -> bool {
    let punct = |index: Option<usize>, char| is_punct(index.and_then(|index| tokens.get(index)), char);
    let before = |steps| at.checked_sub(steps);
    let follows = punct(before(1), '=') && (punct(before(2), '=') || punct(before(2), '!'));
    let precedes = punct(Some(at + 1), '=') && (punct(Some(at + 2), '>') || punct(Some(at + 2), '='));
    follows || precedes || punct(Some(at + 1), '|')
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

fn is_in(names: &[&str], name: &proc_macro2::Ident) -> bool {
    names.iter().any(|known| name == known)
}

/// A literal's text and line, if it is one of text.
fn text(token: TokenTree) -> Option<(usize, String)> {
    let TokenTree::Literal(literal) = token else { return None };
    let line = literal.span().start().line;
    match Lit::new(literal) {
        Lit::Str(text) => Some((line, text.value())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(source: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut reader = Reader { file: "x.rs".to_owned(), found: &mut found };
        reader.items(&syn::parse_file(source).unwrap().items);
        found.iter().map(|Message { place, wording }| format!("{place} {wording}")).collect()
    }

    #[test]
    fn messages_are_found_wherever_they_stand_and_however_they_are_broken() {
        let source = r##"
            #[derive(Error)]
            enum Refused { #[error("no {0} here")] No(String) }
            fn f(x: &str) -> Result<(), String> {
                tracing::warn!(x, "it went \
                    wrong: {x}");
                anyhow::bail!(concat!("first half, ", "second half"));
                let texts = vec![Some(format!(r#"said "so" twice"#))];
                x.map_err(|_| "what a closure says")
            }
            impl X { fn g() { h("from a method") } }
        "##;
        assert_eq!(
            found_in(source),
            [
                "x.rs:3 no <..> here",
                "x.rs:5 it went wrong: <..>",
                "x.rs:7 first half, second half",
                "x.rs:8 said \"so\" twice",
                "x.rs:9 what a closure says",
                "x.rs:11 from a method",
            ]
        );
    }

    #[test]
    fn what_nobody_is_told_is_left_out() {
        let source = r#"
            /// What it is for.
            #[must_use = "it does nothing"]
            fn f(x: &str) {
                tracing::info!("all is well");
                let known = x == "one text" || says("another text");
                match x { "a pattern" | "an alternative" => {} _ => {} }
            }
            const SYMPTOMS: [&str; 1] = ["looked for"];
            #[cfg(test)]
            mod tests { fn f() { panic!("only in tests") } }
            impl X { #[cfg(any(test, feature = "testing"))] fn g() { panic!("only in tests") } }
        "#;
        assert_eq!(found_in(source), [""; 0]);
    }
}
