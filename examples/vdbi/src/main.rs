//! vdbi: all components in one program. Processes of one node share its pages, and an image has to carry it only once.

mod choice;

use std::process::ExitCode;

use vdbi_core::config::Component;

use choice::{Choice, USAGE};

fn main() -> ExitCode {
    match Choice::of(std::env::args()) {
        Choice::Run(component, arguments) => run(component, arguments),
        Choice::Help => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Choice::Version => {
            println!("vdbi {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Choice::Wrong(reason) => {
            eprintln!("{reason}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(component: Component, arguments: Vec<String>) -> ExitCode {
    match component {
        Component::Injector => injector::main(arguments),
        Component::Renewer => renewer::main(arguments),
        Component::Revoker => revoker::main(arguments),
        Component::Nri => node_plugin::main(arguments),
    }
}
