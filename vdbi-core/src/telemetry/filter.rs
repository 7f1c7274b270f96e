//! What is logged.

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::config::LogLevel;

/// Dependencies whose `info` and `debug` are about their own insides, or repeat what an error says that we log.
const NOISY: &[&str] = &[
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "kube",
    "kube_runtime",
    "reqwest",
    "rustify",
    "rustls",
    "tower",
    "vaultrs",
];

/// Dependencies that log, also as errors, nothing but what they return.
const REPEATING: &[&str] = &["kube_client"];

/// The level, as far as `RUST_LOG` does not override it. Directives that cannot be read are reported on stderr and ignored: a
/// typing error in a debugging aid must not stop a process.
pub(super) fn from_env(level: LogLevel) -> Targets {
    let overrides = std::env::var("RUST_LOG").unwrap_or_default();
    targets(level, &overrides, |wrong| eprintln!("ignoring {wrong:?} in RUST_LOG: it is no target=level"))
}

/// Of two directives about the same target the later one counts, and of two about different ones the more specific one.
fn targets(level: LogLevel, overrides: &str, wrong: impl Fn(&str)) -> Targets {
    let configured = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let overrides: Vec<&str> =
        overrides.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    let level = overrides.iter().rev().find_map(|directive| directive.parse().ok()).unwrap_or(configured);

    let mut targets = Targets::new().with_default(level);
    if level > LevelFilter::WARN {
        targets.extend(NOISY.iter().map(|&target| (target, LevelFilter::WARN)));
    }
    targets.extend(REPEATING.iter().map(|&target| (target, LevelFilter::OFF)));
    for directive in overrides {
        let (target, level) = directive.split_once('=').unwrap_or((directive, "trace"));
        match level.trim().parse::<LevelFilter>() {
            Ok(level) if is_target(target.trim()) => targets.extend([(target.trim(), level)]),
            _ if directive.parse::<LevelFilter>().is_ok() => {}
            _ => wrong(directive),
        }
    }
    targets
}

/// A level alone is none, nor are the spans and fields that some filters know.
fn is_target(text: &str) -> bool {
    let fit = |character: char| character.is_alphanumeric() || ":_-".contains(character);
    !text.is_empty() && text.parse::<LevelFilter>().is_err() && text.chars().all(fit)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Which of debug, info, warn and error are logged, by us and by hyper.
    fn heard(level: LogLevel, overrides: &str) -> (usize, usize) {
        let filter = targets(level, overrides, |wrong| panic!("{wrong}"));
        let subscriber = tracing_subscriber::registry().with(filter);
        tracing::subscriber::with_default(subscriber, || {
            macro_rules! count {
                ($target:literal) => {
                    [
                        tracing::enabled!(target: $target, tracing::Level::DEBUG),
                        tracing::enabled!(target: $target, tracing::Level::INFO),
                        tracing::enabled!(target: $target, tracing::Level::WARN),
                        tracing::enabled!(target: $target, tracing::Level::ERROR),
                    ]
                    .into_iter()
                    .filter(|enabled| *enabled)
                    .count()
                };
            }
            (count!("vdbi_core::vault"), count!("hyper::client"))
        })
    }

    #[test]
    fn the_configured_level_is_ours_and_dependencies_are_heard_from_warn_on() {
        assert_eq!(heard(LogLevel::Debug, ""), (4, 2));
        assert_eq!(heard(LogLevel::Info, ""), (3, 2));
        assert_eq!(heard(LogLevel::Warn, ""), (2, 2));
        assert_eq!(heard(LogLevel::Error, ""), (1, 1));
    }

    #[test]
    fn rust_log_overrides_the_level() {
        assert_eq!(heard(LogLevel::Info, "debug"), (4, 2));
        assert_eq!(heard(LogLevel::Info, "error"), (1, 1));
        assert_eq!(heard(LogLevel::Info, "off"), (0, 0));
        assert_eq!(heard(LogLevel::Info, "vdbi_core=debug"), (4, 2));
        assert_eq!(heard(LogLevel::Debug, " info , vdbi_core::vault=error"), (1, 2));
    }

    #[test]
    fn rust_log_can_make_a_dependency_talk() {
        assert_eq!(heard(LogLevel::Info, "hyper=debug"), (3, 4));
        assert_eq!(heard(LogLevel::Info, "hyper=off"), (3, 0));
    }

    #[test]
    fn what_is_no_directive_is_told_and_ignored() {
        let ignored = std::cell::RefCell::new(Vec::new());
        let filter =
            targets(LogLevel::Info, "vdbi_core=loud,hyper[span]=debug,=info,hyper=error", |directive| {
                ignored.borrow_mut().push(directive.to_owned());
            });
        assert_eq!(*ignored.borrow(), ["vdbi_core=loud", "hyper[span]=debug", "=info"]);
        assert!(filter.would_enable("vdbi_core::vault", &tracing::Level::INFO));
        assert!(!filter.would_enable("hyper::client", &tracing::Level::WARN));
    }
}
