use std::{fs, path::Path};

use anyhow::{Context, Result};

/// The output in a container's log, without when and where each line was written.
pub(super) fn read(path: &Path) -> Result<String> {
    let log = fs::read_to_string(path).with_context(|| format!("{} could not be read", path.display()))?;
    Ok(output(&log))
}

fn output(log: &str) -> String {
    let mut output = String::new();
    for line in log.lines() {
        // The last one may be half written.
        let mut parts = line.splitn(4, ' ').skip(2);
        let (Some(tag), Some(text)) = (parts.next(), parts.next()) else { continue };
        output.push_str(text);
        // A long line is in parts.
        if tag == "F" {
            output.push('\n');
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_put_together_and_a_half_written_one_left_out() {
        let log = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stdout P two-\n2026-01-01T00:00:00Z stderr F three\n2026-01";
        assert_eq!(output(log), "one\ntwo-three\n");
    }
}
