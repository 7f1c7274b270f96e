//! vdbi: all components in one program, over OpenBao or Vault.

fn main() -> std::process::ExitCode {
    vdbi::main::<bootstrap::Vault>(std::env::args())
}
