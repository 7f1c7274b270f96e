//! vdbi-renewer: keeps the credentials of living pods alive. Replicas elect a leader for each shard.

fn main() -> std::process::ExitCode {
    renewer::main::<bootstrap::Vault>(std::env::args())
}
