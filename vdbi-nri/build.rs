//! Compiles the protocol's messages.

use std::error::Error;

const PROTOS: [&str; 2] = ["proto/nri.proto", "proto/ttrpc.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo:rerun-if-changed={proto}");
    }
    prost_build::Config::new()
        // They carry credentials: what has no Debug is not printed.
        .skip_debug(["."])
        .bytes([".ttrpc"])
        .compile_fds(protox::compile(PROTOS, ["proto"])?)?;
    Ok(())
}
