//! What suites are made of.

use std::{any::Any, fmt, fmt::Display, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::time::{Instant, sleep};

use super::POLL;

/// One promise of one contract. What its methods find broken ends the test with a panic that says so:
///
/// ```should_panic
/// use vdbi_core::testing::Clause;
///
/// // the contract of Cache is broken, clause a_get_follows_a_put: it found None
/// let clause = Clause::new("Cache", "a_get_follows_a_put");
/// let found: Option<u32> = None;
/// clause.holds(found.is_some(), format_args!("it found {found:?}"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    contract: &'static str,
    name: &'static str,
}

impl Clause {
    /// A clause of the contract of a trait.
    pub const fn new(contract: &'static str, name: &'static str) -> Self {
        Self { contract, name }
    }

    /// The trait whose contract it is of.
    pub fn contract(&self) -> &'static str {
        self.contract
    }

    /// Its name, which is that of the function that checks it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Ends the test: the clause is broken.
    ///
    /// # Panics
    ///
    /// Always.
    #[track_caller]
    pub fn broken(self, how: impl Display) -> ! {
        panic!("the contract of {} is broken, clause {}: {how}", self.contract, self.name)
    }

    /// Looks at a condition.
    ///
    /// # Panics
    ///
    /// Where it does not hold.
    #[track_caller]
    pub fn holds(self, holds: bool, how: impl Display) {
        if !holds {
            self.broken(how);
        }
    }

    /// The result of a call that has to succeed.
    ///
    /// # Panics
    ///
    /// Where it failed.
    #[track_caller]
    pub fn ok<T, E: Display>(self, call: &str, result: Result<T, E>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => self.broken(format_args!("{call} failed: {error}")),
        }
    }

    /// Looks every 20 ms until the condition holds, at most for `patience`.
    ///
    /// # Panics
    ///
    /// Where it does not hold by then.
    pub async fn eventually(self, patience: Duration, how: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + patience;
        while !condition().await {
            if Instant::now() >= deadline {
                self.broken(format_args!("{how}, even after {patience:?}"));
            }
            sleep(POLL).await;
        }
    }
}

/// A clause that an implementation breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// The clause's name.
    pub clause: &'static str,
    /// The message of the panic: how it is broken.
    pub message: String,
}

impl Broken {
    /// Checks a clause; `None` where it holds. The panic of one that does not is printed as any other, and caught.
    pub async fn by(clause: &'static str, check: impl Future<Output = ()>) -> Option<Self> {
        let panic = AssertUnwindSafe(check).catch_unwind().await.err()?;
        Some(Self { clause, message: message(panic) })
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("a panic without a message").to_owned(),
    }
}

/// Makes a suite of functions that each check one clause over the same fixture. It adds `CLAUSES`, their names, `run`, which panics
/// at the first that is broken, and `broken`, which tells all that are.
///
/// ```
/// use vdbi_core::testing::{Clause, suite};
///
/// /// What is put is there.
/// pub async fn what_is_put_is_there(set: &impl Fn() -> Vec<u32>) {
///     Clause::new("Set", "what_is_put_is_there").holds(set().contains(&1), "1 is missing");
/// }
///
/// /// Nothing is there twice.
/// pub async fn nothing_is_there_twice(set: &impl Fn() -> Vec<u32>) {
///     let twice = set().iter().filter(|number| **number == 1).count() > 1;
///     Clause::new("Set", "nothing_is_there_twice").holds(!twice, "1 is there twice");
/// }
///
/// suite! {
///     /// Runs every clause.
///     pub async fn run(set: &impl Fn() -> Vec<u32>) {
///         what_is_put_is_there,
///         nothing_is_there_twice,
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// run(&|| vec![1, 2]).await;
/// let broken = broken(&|| vec![1, 1]).await;
/// assert_eq!(broken.iter().map(|broken| broken.clause).collect::<Vec<_>>(), ["nothing_is_there_twice"]);
/// assert_eq!(CLAUSES, ["what_is_put_is_there", "nothing_is_there_twice"]);
/// # }
/// ```
#[macro_export]
macro_rules! suite {
    (
        $(#[$attribute:meta])*
        pub async fn run($fixture:ident: $type:ty) {
            $($clause:ident),+ $(,)?
        }
    ) => {
        /// The names of the clauses, in the order in which [`run`] checks them.
        pub const CLAUSES: &[&str] = &[$(stringify!($clause)),+];

        $(#[$attribute])*
        ///
        /// # Panics
        ///
        /// When a clause is broken.
        pub async fn run($fixture: $type) {
            $($clause($fixture).await;)+
        }

        /// Checks every clause as [`run`] does, also those after a broken one; tells which are broken.
        pub async fn broken($fixture: $type) -> Vec<$crate::testing::Broken> {
            let mut broken = Vec::new();
            $(broken.extend($crate::testing::Broken::by(stringify!($clause), $clause($fixture)).await);)+
            broken
        }
    };
}
