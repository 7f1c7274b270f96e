//! What a component is assembled over.

use vdbi_core::{credential::CredentialSource, ledger::Ledger};

use crate::Process;

/// Where credentials come from and where the books are kept. [`Vault`](crate::Vault) is that of the reference binaries;
/// `examples/custom-source` has another one.
///
/// All components of a release are separate processes over the same backend: the renewer renews what the webhook issued and
/// recorded.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no backend",
    note = "implement `bootstrap::Backend`: name a source and a ledger, and open them"
)]
pub trait Backend {
    /// Issues, renews and revokes.
    type Source: CredentialSource;
    /// Remembers what was issued.
    type Ledger: Ledger;

    /// Whether the configuration has to say where OpenBao or Vault is. By default it need not.
    const IS_VAULT: bool = false;

    /// Opens both, once for each process. What has to go on beside the work, such as a session that is kept open, is
    /// [spawned](Process::spawn); what has to be well for the process to be ready is registered with its
    /// [`health`](Process::health).
    ///
    /// # Errors
    ///
    /// What only another configuration can mend: it ends the process. A server that does not answer yet is none.
    fn open(process: &mut Process, kubernetes: &kube::Client)
    -> anyhow::Result<(Self::Source, Self::Ledger)>;
}
