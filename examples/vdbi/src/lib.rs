//! vdbi: all components in one program. Processes of one node share its pages, and an image has to carry it only once.

mod choice;

use std::process::ExitCode;

use bootstrap::Backend;
use vdbi_core::config::Component;

use choice::{Choice, USAGE};

/// Runs the component that the command line names, over a backend; the first of `arguments` is the program's name.
pub fn main<B: Backend>(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    match Choice::of(arguments) {
        Choice::Run(component, arguments) => run::<B>(component, arguments),
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

fn run<B: Backend>(component: Component, arguments: Vec<String>) -> ExitCode {
    match component {
        Component::Injector => injector::main::<B>(arguments),
        Component::Renewer => renewer::main::<B>(arguments),
        Component::Revoker => revoker::main::<B>(arguments),
        Component::Nri => node_plugin::main::<B>(arguments),
    }
}
