//! The messages of a page: the code spans in the first column of every table whose first column is headed `message`.

/// With their lines.
pub(crate) fn messages(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_table = None;
    for (index, line) in page.lines().enumerate() {
        let Some(row) = line.trim().strip_prefix('|') else {
            in_table = None;
            continue;
        };
        let first = first_cell(row);
        let lists_messages = *in_table.get_or_insert(first.trim() == "message");
        if lists_messages {
            found.extend(spans(&first).into_iter().map(|span| (index + 1, span)));
        }
    }
    found
}

/// Up to the first bar that is none of the text.
fn first_cell(row: &str) -> String {
    let mut cell = String::new();
    for char in row.chars() {
        match char {
            '|' if !cell.ends_with('\\') => break,
            '|' => {
                cell.pop();
                cell.push('|');
            }
            char => cell.push(char),
        }
    }
    cell
}

/// Code spans, also those that begin and end with more than one backtick since they contain some.
fn spans(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find('`') {
        let opened = &rest[begin..];
        let ticks = opened.len() - opened.trim_start_matches('`').len();
        let inside = &opened[ticks..];
        let Some(end) = closing(inside, ticks) else { break };
        let span = &inside[..end];
        let padded = span.strip_prefix(' ').and_then(|span| span.strip_suffix(' '));
        found.push(padded.unwrap_or(span).to_owned());
        rest = &inside[end + ticks..];
    }
    found
}

/// Where so many backticks begin, and no more.
fn closing(text: &str, ticks: usize) -> Option<usize> {
    let mut from = 0;
    loop {
        let begin = from + text[from..].find('`')?;
        let run = text[begin..].len() - text[begin..].trim_start_matches('`').len();
        if run == ticks {
            return Some(begin);
        }
        from = begin + run;
    }
}

#[test]
fn messages_are_code_spans_in_the_first_column_of_tables_of_messages() {
    let page = "`none`\n\n| message | means |\n|---|---|\n| `a <b>`, ``c `d` e`` | `none` |\n| `f \\| g` |\n\n| key |\n|---|\n| `none` |\n";
    let found = messages(page);
    let expected = [(5, "a <b>"), (5, "c `d` e"), (6, "f | g")];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
}
