//! vdbi-injector: the mutating admission webhook.

fn main() -> std::process::ExitCode {
    injector::main::<bootstrap::Vault>(std::env::args())
}
