//! The build script of small binaries: it links the relocations in their compact form, which takes half a megabyte less of each process's memory.

fn main() {
    println!("cargo::rerun-if-changed=../bootstrap/link.rs");
    let target = |key: &str| std::env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    // glibc knows them from 2.36 on, musl from 1.2.4, which Rust has from 1.93 on.
    if target("OS") == "linux" && ["gnu", "musl"].contains(&target("ENV").as_str()) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
