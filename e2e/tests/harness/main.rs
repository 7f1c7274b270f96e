//! What the other tests rely on: the servers answer, work together, and never outlive a test.

mod installed;
mod process;
mod servers;
mod setup;

use anyhow::Result;
use e2e::openbao::Refused;

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T>, status: u16) {
    let Err(error) = outcome else { panic!("it was not refused") };
    let answered = error.downcast_ref::<Refused>().map(|refused| refused.status.as_u16());
    assert_eq!(answered, Some(status), "{error:#}");
}
