//! `vdbi-nri-plugin doctor`: what stands between this node's containerd and the plugin.
//!
//! It needs no configuration and changes nothing. [`examine`] looks, [`findings`] judges what it saw.

mod examine;
mod findings;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser};

use findings::{Severity, judge};

/// Wrong command line, as for the plugin itself.
const USAGE: u8 = 2;

/// Says whether the plugin can work with the containerd of this node, and what to do where it cannot. Ends with 1 when something fails.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// containerd's own socket.
    #[arg(long, value_name = "PATH", default_value = "/run/containerd/containerd.sock")]
    containerd: PathBuf,
    /// The socket at which plugins register: `nri.socketPath` in the plugin's configuration.
    #[arg(long, value_name = "PATH", default_value = "/var/run/nri/nri.sock")]
    nri_socket: PathBuf,
}

/// Looks, and prints a line for each finding.
pub(crate) fn run(arguments: Vec<String>) -> ExitCode {
    // After the program's name and `doctor`.
    let arguments = ["vdbi-nri-plugin doctor".to_owned()].into_iter().chain(arguments.into_iter().skip(2));
    let command = Arguments::command().name("vdbi-nri-plugin doctor");
    let matches = command.try_get_matches_from(arguments);
    let arguments = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to report a failing terminal to.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let Arguments { containerd, nri_socket } = arguments;
    let facts = match examine::node(containerd, nri_socket) {
        Ok(facts) => facts,
        Err(error) => {
            eprintln!("the doctor cannot work: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = judge(&facts);
    for finding in &findings {
        println!("{finding}");
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    match (count(Severity::Fail), count(Severity::Warn)) {
        (0, 0) => println!("This node is ready."),
        (0, warnings) => println!("This node is ready (warnings: {warnings})."),
        (failures, _) => {
            println!("This node is not ready (failures: {failures}).");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
