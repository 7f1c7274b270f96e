use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables that a server inherits; no other is, so that what the caller's shell has set changes no test.
const INHERITED: [&str; 5] = ["PATH", "LANG", "RUST_BACKTRACE", "RUST_LOG", "LLVM_PROFILE_FILE"];

/// What to run: a program, its arguments and its environment.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: PathBuf,
    pub(super) user: Option<String>,
    pub(super) forks: bool,
}

impl Program {
    /// A program that runs in `directory`, which is also its `HOME`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, directory: &Path) -> Self {
        let inherited = INHERITED.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: inherited.chain([("HOME".into(), directory.into())]).collect(),
            directory: directory.to_owned(),
            user: None,
            forks: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it as another user, which takes root.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// It runs the program that is meant in a process of its own, and waits for that one: what is sent to it is for that one.
    #[must_use]
    pub(crate) fn forks(mut self) -> Self {
        self.forks = true;
        self
    }
}
