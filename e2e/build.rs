//! Compiles the client of the Container Runtime Interface.

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    let messages = protox::compile(["proto/cri.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(messages)?;
    Ok(())
}
