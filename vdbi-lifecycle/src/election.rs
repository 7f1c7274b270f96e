//! Leadership over a Kubernetes Lease.

mod clock;
mod identity;
mod record;
mod settings;
mod state;

pub use clock::BoottimeClock;
pub use identity::Identity;
pub use settings::Settings;
