//! The build script of small binaries: it links the relocations in their compact form, which takes half a megabyte less of each process's memory.

fn main() {
    println!("cargo::rerun-if-changed=../bootstrap/link.rs");
    let target = |key: &str| std::env::var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    // Its loader knows them from glibc 2.36 on.
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
