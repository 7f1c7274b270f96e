//! Which component is meant: the name the program is started as says so, or its first argument.

use std::path::Path;

use vdbi_core::config::Component;

pub(crate) const USAGE: &str = "\
Usage: vdbi <COMPONENT> [--config FILE]

Components:
  injector    the mutating admission webhook
  renewer     keeps the credentials of living pods alive
  revoker     revokes the credentials of pods that are done
  nri-plugin  puts credentials into containers, one for each node

Each has options of its own: vdbi <COMPONENT> --help. A link to this program by the name vdbi-<COMPONENT> is that component.

Options:
  -h, --help     Print help
  -V, --version  Print version";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first argument is the name that the component goes by.
    Run(Component, Vec<String>),
    Help,
    Version,
    /// What is wrong with the command line.
    Wrong(String),
}

impl Choice {
    pub(crate) fn of(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut arguments: Vec<String> = arguments.into_iter().collect();
        let started_as = arguments.first().and_then(|program| Path::new(program).file_name()?.to_str());
        if let Some(component) = started_as.and_then(|name| component(name.strip_prefix("vdbi-")?)) {
            return Self::Run(component, arguments);
        }
        match arguments.get(1).map(String::as_str) {
            None => Self::Wrong("which component? None is named".to_owned()),
            Some("-h" | "--help") => Self::Help,
            Some("-V" | "--version") => Self::Version,
            Some(name) => match component(name) {
                Some(component) => {
                    let program = format!("vdbi {name}");
                    arguments.splice(..2, [program]);
                    Self::Run(component, arguments)
                }
                None => Self::Wrong(format!("there is no component {name:?}")),
            },
        }
    }
}

fn component(name: &str) -> Option<Component> {
    match name {
        "injector" => Some(Component::Injector),
        "renewer" => Some(Component::Renewer),
        "revoker" => Some(Component::Revoker),
        "nri-plugin" => Some(Component::Nri),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENTS: [(&str, Component); 4] = [
        ("injector", Component::Injector),
        ("renewer", Component::Renewer),
        ("revoker", Component::Revoker),
        ("nri-plugin", Component::Nri),
    ];

    fn choice(arguments: &[&str]) -> Choice {
        Choice::of(arguments.iter().map(ToString::to_string))
    }

    fn run(component: Component, arguments: &[&str]) -> Choice {
        Choice::Run(component, arguments.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_argument_names_the_component_and_the_others_are_its_own() {
        for (name, component) in COMPONENTS {
            let chosen = choice(&["/vdbi", name, "-config", "a.yaml"]);
            assert_eq!(chosen, run(component, &[&format!("vdbi {name}"), "-config", "a.yaml"]));
        }
        let doctor = choice(&["vdbi", "nri-plugin", "doctor", "--help"]);
        assert_eq!(doctor, run(Component::Nri, &["vdbi nri-plugin", "doctor", "--help"]));
    }

    #[test]
    fn a_link_by_the_name_of_a_component_is_that_component() {
        for (name, component) in COMPONENTS {
            for path in [format!("vdbi-{name}"), format!("/usr/bin/vdbi-{name}")] {
                assert_eq!(
                    choice(&[&path, "--config", "a.yaml"]),
                    run(component, &[&path, "--config", "a.yaml"])
                );
                assert_eq!(choice(&[&path, "--version"]), run(component, &[&path, "--version"]));
            }
        }
    }

    #[test]
    fn a_program_of_another_name_is_chosen_by_its_argument() {
        assert_eq!(choice(&["/opt/other", "renewer"]), run(Component::Renewer, &["vdbi renewer"]));
        assert_eq!(choice(&["vdbi-next", "renewer"]), run(Component::Renewer, &["vdbi renewer"]));
    }

    #[test]
    fn help_and_version_need_no_component() {
        assert_eq!(choice(&["vdbi", "--help"]), Choice::Help);
        assert_eq!(choice(&["vdbi", "-h"]), Choice::Help);
        assert_eq!(choice(&["vdbi", "--version"]), Choice::Version);
        assert_eq!(choice(&["vdbi", "-V"]), Choice::Version);
    }

    #[test]
    fn a_missing_or_unknown_component_is_wrong_and_the_usage_names_them_all() {
        for arguments in
            [&[][..], &["vdbi"], &["vdbi", "nri"], &["vdbi", "--config"], &["vdbi", "vdbi-renewer"]]
        {
            assert!(matches!(choice(arguments), Choice::Wrong(_)), "{arguments:?}");
        }
        let Choice::Wrong(reason) = choice(&["vdbi", "renewr"]) else { panic!("it is no component") };
        assert!(reason.contains("renewr"), "{reason}");
        for (name, _) in COMPONENTS {
            assert!(USAGE.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name}");
        }
    }
}
