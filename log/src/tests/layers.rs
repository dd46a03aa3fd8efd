//! The layers of the crate hold: a file uses only its own layer and those before it, and no files use each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// From the bottom to the top.
const LAYERS: [&[&str]; 7] =
    [&["ids", "error", "settings"], &["batch"], &["files"], &["shard"], &["transactions"], &["streams"], &["log"]];

/// The modules that each module uses, both as paths below `src` without the extension.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// What breaks the rules, one line each.
fn faults(uses: &Uses) -> Vec<String> {
    let layer = |module: &str| {
        let top = module.split('/').next().unwrap_or(module);
        LAYERS.iter().position(|layer| layer.contains(&top))
    };
    let mut faults = Vec::new();
    for (module, used) in uses {
        for other in used {
            match (layer(module), layer(other)) {
                (Some(own), Some(lower)) if lower <= own => {}
                (None, _) => faults.push(format!("{module} is in no layer")),
                _ => faults.push(format!("{module} uses {other}, which is in a later layer or in none")),
            }
        }
    }
    faults.extend(uses.keys().filter(|module| reaches(uses, module, module)).map(|m| format!("{m} is in a circle")));
    faults
}

/// Whether `to` is used by `from`, or by what that uses.
fn reaches(uses: &Uses, from: &str, to: &str) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(module) = left.pop() {
        for used in uses.get(module).into_iter().flatten() {
            if used == to {
                return true;
            }
            if seen.insert(used) {
                left.push(used);
            }
        }
    }
    false
}

/// The modules that a source names with `crate::`, comments and unit tests left out.
fn used_by(source: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or(source);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut used = BTreeSet::new();
    for path in lines.flat_map(|line| line.split("crate::").skip(1)) {
        let names = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
        let first = names(path);
        let rest = path.strip_prefix(&first).and_then(|rest| rest.strip_prefix("::")).unwrap_or("");
        // `crate::files::{scan, storage}` names two.
        let seconds = rest.strip_prefix('{').map_or(vec![names(rest)], |group| {
            group.split('}').next().unwrap_or("").split(',').map(|name| names(name.trim())).collect()
        });
        for second in seconds {
            let nested = format!("{first}/{second}");
            used.insert(if modules.contains(&nested) { nested } else { first.clone() });
        }
    }
    used
}

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut sources, mut folders) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let module = path.strip_prefix(&root).expect("below it").with_extension("").display().to_string();
            if path.is_dir() {
                if module != "tests" {
                    folders.push(path);
                }
            } else if module != "lib" && !module.ends_with("/mod") {
                sources.insert(module, std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    sources
}

fn uses(sources: &BTreeMap<String, String>) -> Uses {
    let modules = sources.keys().cloned().collect();
    sources.iter().map(|(module, source)| (module.clone(), used_by(source, &modules))).collect()
}

#[test]
fn every_file_uses_only_what_is_below_it() {
    let sources = sources();
    assert!(sources.len() > 30, "the crate has more files than {}", sources.len());
    let uses = uses(&sources);
    assert!(uses["shard/shard"].contains("files/segment"), "uses are found: {:?}", uses["shard/shard"]);
    assert_eq!(faults(&uses), [""; 0]);
    for (module, source) in &sources {
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or(source);
        assert!(!code.contains("super::super") && !code.contains("use super::"), "{module} names files by `crate::`");
    }
}

#[test]
fn a_use_upwards_and_a_circle_are_found() {
    let planted = |changes: &[(&str, &str)]| {
        let mut sources = sources();
        for (module, line) in changes {
            sources.get_mut(*module).expect("a module").insert_str(0, &format!("{line}\n"));
        }
        faults(&uses(&sources)).join("; ")
    };
    let upwards = planted(&[("files/scan", "use crate::shard::queue::Queue;")]);
    assert!(upwards.contains("files/scan uses shard/queue, which is in a later layer"), "{upwards}");
    let circle = planted(&[("shard/producers", "use crate::shard::{append, queue};")]);
    assert!(
        circle.contains("shard/producers is in a circle") && circle.contains("shard/queue is in a circle"),
        "{circle}"
    );
    let root = planted(&[("batch/codec", "use crate::LogError;")]);
    assert!(root.contains("batch/codec uses LogError, which is in a later layer or in none"), "{root}");
    assert_eq!(planted(&[("batch/codec", "// use crate::shard::queue::Queue;")]), "", "a comment uses nothing");
}
