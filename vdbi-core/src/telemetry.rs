//! Log output, for whoever assembles a process. The libraries only emit events.
//!
//! [`LogFormat::Json`] writes one object per line, with the keys of the Go product: `level` (`debug`, `info`, `warning`,
//! `error`), `message`, `time` (RFC 3339, UTC), and beside them the fields of the event and of the spans around it.
//! [`LogFormat::Human`] writes for a reader, in colour when that is a terminal.
//!
//! The environment variable `RUST_LOG` (`debug`, `vdbi_core=debug,hyper=info`) overrides the configured level, by target. Dependencies
//! that say a lot are heard from `warn` on unless it names them.

mod filter;
mod json;

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogLevel};

/// Logs to stdout from now on, process-wide. Where logging is set up already this does nothing.
pub fn init(format: LogFormat, level: LogLevel) {
    let filter = filter::from_env(level);
    match format {
        LogFormat::Json => install(filter, json::Json::new(io::stdout)),
        LogFormat::Human => install(filter, human(io::stdout, colourful(&io::stdout()))),
    }
}

/// Logs to stderr in the human format from now on, process-wide, so that stdout remains for the program's own words. Where
/// logging is set up already this does nothing.
pub fn init_stderr() {
    install(filter::from_env(LogLevel::Info), human(io::stderr, colourful(&io::stderr())));
}

fn install(filter: Targets, layer: impl Layer<Filtered> + Send + Sync) {
    // An error says that somebody was here before.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}

type Filtered = tracing_subscriber::layer::Layered<Targets, Registry>;

fn human<S, W>(writer: W, colour: bool) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().with_writer(writer).with_ansi(colour)
}

/// Colour is for a terminal whose user did not decline it (<https://no-color.org>).
fn colourful(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::json::tests::Captured;

    fn written(colour: bool) -> String {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::registry().with(human(captured.clone(), colour));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(pod = "team-a/web", "denied"));
        captured.text()
    }

    #[test]
    fn the_human_format_is_coloured_only_where_it_is_asked_for() {
        let plain = written(false);
        assert!(plain.ends_with(" WARN vdbi_core::telemetry::tests: denied pod=\"team-a/web\"\n"), "{plain}");
        assert!(written(true).contains('\x1b'));
    }

    #[test]
    fn a_file_is_no_terminal() {
        assert!(!colourful(&std::fs::File::open("Cargo.toml").unwrap()));
    }

    #[test]
    fn a_second_set_up_is_harmless() {
        init_stderr();
        init(LogFormat::Json, LogLevel::Error);
        init_stderr();
    }
}
