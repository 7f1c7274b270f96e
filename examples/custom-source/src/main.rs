//! The stock components over accounts in files.

fn main() -> std::process::ExitCode {
    vdbi::main::<custom_source::Files>(std::env::args())
}
