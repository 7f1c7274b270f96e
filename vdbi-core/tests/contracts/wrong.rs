//! What is expected of a suite over wrong implementations. The tests of the other crates' suites share it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::Path,
};

use vdbi_core::testing::Broken;

/// A wrong implementation breaks that clause, which ends a run of the suite, and no other. Returns the message.
pub(crate) fn expect_one_broken(
    flaw: impl Debug,
    clause: &str,
    broken: &[Broken],
    run: Option<Broken>,
) -> String {
    let clauses: Vec<&str> = broken.iter().map(|broken| broken.clause).collect();
    assert_eq!(clauses, [clause], "{flaw:?}: {broken:#?}");
    let run = run.expect("run panics too").message;
    for message in [&broken[0].message, &run] {
        let contract =
            message.split_once(&format!(" is broken, clause {clause}: ")).map(|(contract, _)| contract);
        assert!(contract.is_some_and(|it| it.starts_with("the contract of ")), "{flaw:?}: {message}");
    }
    run
}

/// Every clause has a wrong implementation, and the table of `docs/sdk/contracts.md` below the suite's name has a row for each clause,
/// with the wrong implementations in its last column.
pub(crate) fn expect_complete(suite: &str, clauses: &[&str], flaws: &[(impl Debug, &str)]) {
    let mut wrong: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (flaw, clause) in flaws {
        wrong.entry(clause).or_default().insert(format!("{flaw:?}"));
    }
    let all: BTreeSet<&str> = clauses.iter().copied().collect();
    assert_eq!(all.len(), clauses.len(), "a clause is in the suite twice");
    assert_eq!(wrong.keys().copied().collect::<BTreeSet<_>>(), all, "clauses with a wrong implementation");

    let page = page();
    let (_, section) = page.split_once(&format!("### `{suite}`\n")).expect("the suite has a section");
    let table = section.split("\n### ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<(&str, BTreeSet<String>)> = table
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [clause, demand, flaws] = cells[..] else { panic!("a row has three cells: {row}") };
            assert!(!demand.is_empty(), "{row}");
            let flaws = flaws.split(", ").map(|flaw| flaw.trim_matches('`').to_owned());
            (clause.trim_matches('`'), flaws.collect())
        })
        .collect();
    assert_eq!(
        rows.iter().map(|(clause, _)| *clause).collect::<Vec<_>>(),
        clauses,
        "rows in docs/sdk/contracts.md"
    );
    assert_eq!(
        rows.into_iter().collect::<BTreeMap<_, _>>(),
        wrong,
        "wrong implementations in docs/sdk/contracts.md"
    );
}

/// `docs/sdk/contracts.md`.
pub(crate) fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sdk/contracts.md")).unwrap()
}
