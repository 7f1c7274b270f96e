//! What is logged.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

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
pub(super) fn from_env(level: LogLevel) -> EnvFilter {
    EnvFilter::builder().parse_lossy(directives(level, std::env::var("RUST_LOG").unwrap_or_default().trim()))
}

/// Of two directives about the same target the later one counts, and of two about different ones the more specific one.
fn directives(level: LogLevel, overrides: &str) -> String {
    let configured = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let overrides: Vec<&str> =
        overrides.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    let level = overrides.iter().rev().find_map(|directive| directive.parse().ok()).unwrap_or(configured);

    let mut directives = vec![level.to_string()];
    if level > LevelFilter::WARN {
        directives.extend(NOISY.iter().map(|target| format!("{target}=warn")));
    }
    directives.extend(REPEATING.iter().map(|target| format!("{target}=off")));
    directives.extend(overrides.into_iter().map(str::to_owned));
    directives.join(",")
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Which of debug, info, warn and error are logged, by us and by hyper.
    fn heard(level: LogLevel, overrides: &str) -> (usize, usize) {
        let filter = EnvFilter::builder().parse(directives(level, overrides)).unwrap();
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
}
