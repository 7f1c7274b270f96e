//! vdbi-nri-plugin: puts credentials into containers in the place of placeholders. One for each node, and each release.

fn main() -> std::process::ExitCode {
    node_plugin::main::<bootstrap::Vault>(std::env::args())
}
