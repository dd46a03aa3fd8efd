//! Files of statements and what they give, readable as a specification. `COULEE_GOLDEN=write cargo test -p coulee-sql` rewrites them.

use std::path::PathBuf;

/// Blocks stand between lines of `====`; in each, the input and the expected output on both sides of a line of `----`.
pub fn check(file: &str, answer: impl Fn(&str) -> String) {
    // Cargo runs tests in the crate's folder; a path fixed at compile time would be another clone's where build products are shared.
    let path = PathBuf::from("tests/golden").join(file);
    let text = std::fs::read_to_string(&path).expect("the golden file");
    let mut actual = Vec::new();
    for block in text.trim_end().split("\n====\n") {
        let input = block.split("\n----").next().unwrap_or_default().trim_start_matches('\n');
        actual.push(format!("{input}\n----\n{}", answer(input).trim_end()));
    }
    let actual = actual.join("\n====\n") + "\n";
    if std::env::var("COULEE_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, actual).expect("the golden file");
        return;
    }
    for (expected, actual) in text.split("\n====\n").zip(actual.split("\n====\n")) {
        assert_eq!(actual.trim_end(), expected.trim_end(), "in {}", path.display());
    }
}
