//! The rooms table of ARCHITECTURE.md against what the crates really depend on, so that the page cannot rot.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Rows `| folder | crate | may know |`: crate to the crates of ours that it may depend on.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string("../ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let mut rooms = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(name) = cells.get(1).and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`')) else { continue };
        let known = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rooms.insert(name.to_owned(), known);
    }
    rooms
}

/// What each crate of the workspace depends on among its siblings; development dependencies do not count.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir("..")
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut found = BTreeMap::new();
    for package in packages {
        let siblings = package["dependencies"].as_array().expect("dependencies").iter();
        let siblings = siblings.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        let names = siblings.filter_map(|dependency| dependency["name"].as_str());
        let names = names.filter(|name| name.starts_with("coulee")).map(str::to_owned).collect();
        found.insert(package["name"].as_str().expect("a name").to_owned(), names);
    }
    found
}

#[test]
fn every_crate_knows_only_what_the_rooms_table_lets_it_know() {
    let (table, found) = (table(), dependencies());
    let (listed, real): (BTreeSet<_>, BTreeSet<_>) = (table.keys().collect(), found.keys().collect());
    assert_eq!(listed, real, "ARCHITECTURE.md lists other crates than the workspace has");
    for (name, known) in &found {
        let forbidden: Vec<&String> = known.difference(&table[name]).collect();
        assert!(
            forbidden.is_empty(),
            "{name} depends on {forbidden:?}; ARCHITECTURE.md lets it know {:?}",
            table[name]
        );
    }
}
