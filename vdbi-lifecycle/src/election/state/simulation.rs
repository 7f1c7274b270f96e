//! Random histories: replicas whose clocks run at different rates, over a network that delays, loses and cuts, with crashes,
//! restarts, shutdowns, pauses, failing work and deletions. True time is known here, and to nobody else.
//!
//! `VDBI_HISTORIES=1000000 cargo test --release -p vdbi-lifecycle --lib simulation` looks at more of them, and
//! `VDBI_HISTORY=<seed>` at one.

use std::thread;

use super::*;
use crate::election::Identity;

mod api;
mod node;
mod profile;
mod world;

use profile::Profile;
use world::{Violation, World};

const SECOND: Duration = Duration::from_secs(1);

/// The violations in so many histories, by their seeds.
fn violations(profile: Profile, histories: u64) -> Vec<(u64, Violation)> {
    let seeds = match std::env::var("VDBI_HISTORY") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..histories,
    };
    let run = |seeds: &mut dyn Iterator<Item = u64>| {
        let mut terms = 0;
        let mut found = Vec::new();
        for seed in seeds {
            let (won, violation) = World::new(seed, profile).run();
            terms += u64::from(won);
            found.extend(violation.map(|violation| (seed, violation)));
        }
        (terms, found)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (mut terms, mut found) = (0, Vec::new());
    thread::scope(|scope| {
        let shares: Vec<_> = (0..threads)
            .map(|share| {
                scope.spawn({
                    let seeds = seeds.clone();
                    move || run(&mut seeds.skip(share).step_by(threads))
                })
            })
            .collect();
        for share in shares {
            let (won, violations) = share.join().unwrap();
            terms += won;
            found.extend(violations);
        }
    });
    assert!(terms >= seeds.end - seeds.start, "{terms} terms are too few to prove anything");
    found.sort_unstable_by_key(|(seed, _)| *seed);
    found
}

fn histories(default: u64) -> u64 {
    std::env::var("VDBI_HISTORIES").map_or(default, |histories| histories.parse().unwrap())
}

/// None of them violates anything.
fn hold(profile: Profile, histories: u64) {
    let found = violations(profile, histories);
    assert!(
        found.is_empty(),
        "{} of {histories} histories, the first: {:?}",
        found.len(),
        &found[..found.len().min(5)]
    );
}

fn killed(profile: Profile, histories: u64, by: &[Violation]) -> usize {
    violations(profile, histories).iter().filter(|(_, violation)| by.contains(violation)).count()
}

#[test]
fn no_two_terms_stand_at_once_and_there_is_a_leader_in_the_end() {
    hold(Profile::rough(), histories(6_000));
}

#[test]
fn clocks_at_the_bound_slow_answers_and_cuts_that_hit_the_leader_make_no_two_terms() {
    hold(Profile::harsh(), histories(3_000));
}

#[test]
fn a_crash_in_a_good_network_is_made_up_for_within_the_lease_duration_and_a_second() {
    hold(Profile::benign(), histories(1_000));
}

/// That the simulation would notice, here and in the mutants below.
#[test]
fn clocks_beyond_the_bound_let_two_terms_overlap() {
    let profile = Profile { slowest: 1.0 / 1.7, ..Profile::harsh() };
    assert!(killed(profile, 300, &[Violation::TwoTerms]) >= 3);
}

#[test]
fn the_mutant_that_counts_its_deadline_from_the_answer_is_killed() {
    let profile = Profile { fault: Some(Fault::DeadlineFromAnswer), ..Profile::harsh() };
    assert!(killed(profile, 300, &[Violation::TwoTerms]) >= 3);
}

#[test]
fn the_mutant_without_compare_and_swap_is_killed() {
    let profile = Profile { fault: Some(Fault::NoCompareAndSwap), ..Profile::rough() };
    assert!(killed(profile, 300, &[Violation::TwoTerms]) >= 3);
}

#[test]
fn the_mutant_whose_release_looks_at_nothing_is_killed() {
    let profile = Profile { fault: Some(Fault::UncheckedRelease), ..Profile::rough() };
    assert!(killed(profile, 1_000, &[Violation::TwoTerms]) >= 3);
}

#[test]
fn the_mutant_that_acts_after_a_pause_without_looking_at_its_term_is_killed() {
    let profile = Profile { fault: Some(Fault::UncheckedEffect), ..Profile::rough() };
    assert!(killed(profile, 300, &[Violation::EffectInAnothersTerm]) >= 3);
}
