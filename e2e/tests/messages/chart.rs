//! What the chart says: Helm's refusals and warnings, and the messages of admission policies.

use std::{fs, path::Path};

use crate::{Message, files, wording::Wording};

/// The file that refuses values: all its texts are about that.
const REFUSALS: &str = "charts/vdbi/templates/_configuration.tpl";

pub(crate) fn messages(root: &Path) -> Vec<Message> {
    let mut found = refusals(&fs::read_to_string(root.join(REFUSALS)).unwrap(), REFUSALS);
    let notes = "charts/vdbi/templates/NOTES.txt";
    found.extend(warnings(&fs::read_to_string(root.join(notes)).unwrap(), notes));
    for file in files(&root.join("charts/vdbi/templates/policies"), ".yaml") {
        let place = file.strip_prefix(root).unwrap().display().to_string();
        found.extend(of_policy(&fs::read_to_string(&file).unwrap(), &place));
    }
    found
}

/// Texts in double quotes.
fn refusals(text: &str, file: &str) -> Vec<Message> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for quoted in line.split('"').skip(1).step_by(2) {
            let plain = quoted.replace("\\n", " ").replace("%s", "<arg>").replace("%v", "<arg>");
            push(&mut found, file, index, Wording::of_page(&plain));
        }
    }
    found
}

/// The paragraphs of the notes that warn.
fn warnings(text: &str, file: &str) -> Vec<Message> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("WARNING: ")) {
        let rest = lines[index..].iter().take_while(|line| !(line.is_empty() || line.starts_with("{{- end")));
        let paragraph = rest.copied().collect::<Vec<_>>().join(" ");
        push(&mut found, file, index, of_template(&paragraph));
    }
    found
}

/// `message` and `messageExpression` of its validations.
fn of_policy(text: &str, file: &str) -> Vec<Message> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let pair = line.trim_start().trim_start_matches("- ");
        let Some((key @ ("message" | "messageExpression"), value)) = pair.split_once(": ") else { continue };
        let indent = line.len() - pair.len();
        let is_inside = |line: &&&str| line.len() - line.trim_start().len() > indent;
        let folded = lines[index + 1..].iter().take_while(is_inside).copied().collect::<Vec<_>>().join(" ");
        let value = if value.starts_with('>') { folded } else { value.trim_matches('"').to_owned() };
        let wording = if key.ends_with("Expression") { of_expression(&value) } else { of_template(&value) };
        push(&mut found, file, index, wording);
    }
    found
}

/// What Helm puts in place of its expressions is an argument.
fn of_template(text: &str) -> Wording {
    let mut pieces = text.split("{{");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str("<arg>");
        plain.push_str(piece.split_once("}}").map_or("", |(_, after)| after));
    }
    Wording::of_page(&plain)
}

/// So is what stands between the texts of an expression in CEL.
fn of_expression(text: &str) -> Wording {
    let pieces = text.trim().split('\'').enumerate();
    let plain = pieces.filter(|(_, piece)| !piece.is_empty()).map(|(index, piece)| match index % 2 {
        0 => "<arg>",
        _ => piece,
    });
    Wording::of_page(&plain.collect::<String>())
}

fn push(found: &mut Vec<Message>, file: &str, index: usize, wording: Wording) {
    if wording.has_words() {
        found.push(Message { place: format!("{file}:{}", index + 1), wording });
    }
}

#[test]
fn messages_of_policies_are_found_in_each_form() {
    let policy = "
  validations:
    - expression: \"true\"
      message: \"only {{ $number }} s at most\"
    - message: >-
        in two
        lines
      messageExpression: \"'requests for ' + variables.allowed.join(', ') + ' alone'\"
      messageExpression: >-
        '/' + variables.reaching[0] + ' of the host'
";
    let found = of_policy(policy, "x.yaml");
    let found: Vec<String> =
        found.iter().map(|Message { place, wording }| format!("{place} {wording}")).collect();
    assert_eq!(
        found,
        [
            "x.yaml:4 only <..> s at most",
            "x.yaml:5 in two lines",
            "x.yaml:8 requests for <..>, <..> alone",
            "x.yaml:9 /<..> of the host",
        ]
    );
}
