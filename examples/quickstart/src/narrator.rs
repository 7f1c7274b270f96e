//! What the reader sees: a line per step, or JSON.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

use serde_json::{Value, json};

/// ANSI codes; only a terminal gets them.
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

pub(crate) struct Narrator {
    json: bool,
    colour: bool,
    started: Instant,
}

impl Narrator {
    pub(crate) fn new(json: bool, started: Instant) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, started }
    }

    /// A new part of the story.
    pub(crate) fn chapter(&self, title: &str) {
        if !self.json {
            self.line(&format!("\n{}", self.paint(BOLD, title)));
        }
    }

    /// One step.
    pub(crate) fn say(&self, step: &str, text: &str) {
        self.report(step, text, json!({}));
    }

    /// One step with figures for machines.
    pub(crate) fn report(&self, step: &str, text: &str, details: Value) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.json {
            self.line(
                &json!({ "step": step, "at_s": seconds, "text": text, "details": details }).to_string(),
            );
        } else {
            self.line(&format!("{} {text}", self.paint(DIM, &format!("{seconds:6.2}s"))));
        }
    }

    /// Something below a step, for people only.
    pub(crate) fn detail(&self, text: &str) {
        if !self.json {
            self.line(&format!("        {}", self.paint(DIM, text)));
        }
    }

    /// The end.
    pub(crate) fn summary(&self, lines: &[String]) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.json {
            self.line(&json!({ "step": "summary", "at_s": seconds, "lines": lines }).to_string());
            return;
        }
        for line in lines {
            self.line(&format!("  {} {line}", self.paint(GREEN, "✓")));
        }
        self.line(&format!("\n{}", self.paint(BOLD, &format!("Done in {seconds:.1} s."))));
    }

    pub(crate) fn failed(&self, error: &anyhow::Error) {
        if self.json {
            self.line(&json!({ "step": "failed", "error": format!("{error:#}") }).to_string());
        } else {
            let _ = writeln!(std::io::stderr(), "\n{} {error:#}", self.paint(RED, "failed:"));
        }
    }

    pub(crate) fn interrupted(&self) {
        if self.json {
            self.line(&json!({ "step": "interrupted" }).to_string());
        } else {
            self.line("\ninterrupted; everything has been stopped");
        }
    }

    /// A reader who has gone away, as `head` does, is no reason to fail.
    fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("{code}{text}{RESET}") } else { text.to_owned() }
    }
}
