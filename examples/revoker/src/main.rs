//! vdbi-revoker: revokes the credentials of pods that are done. Replicas elect a leader for each shard.

fn main() -> std::process::ExitCode {
    revoker::main::<bootstrap::Vault>(std::env::args())
}
