//! Scalar functions against values that a real Flink gave: `tests/golden/functions.txt`.

use arrow::util::display::array_value_to_string;

use crate::evaluation::batches_of;

/// The values of expressions in one query, or why there are none. An error of one is one of all.
fn values(expressions: &[&str]) -> Result<Vec<String>, String> {
    let items: Vec<String> = expressions.iter().enumerate().map(|(at, text)| format!("{text} AS c{at}")).collect();
    let batches = batches_of(&format!("SELECT carrier, {} FROM flights", items.join(", ")))?;
    let first = batches.first().ok_or("the row is rejected")?;
    let columns = first.columns().iter().skip(1);
    Ok(columns.map(|column| array_value_to_string(column, 0).expect("a value")).collect())
}

#[test]
fn functions_give_flinks_values() {
    let text = include_str!("../golden/functions.txt");
    let lines: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(" => ").expect("expression => value"))
        .collect();
    assert!(lines.len() > 250, "{} expressions", lines.len());
    let (wrong, right): (Vec<_>, Vec<_>) = lines.iter().partition(|(_, expected)| *expected == "error");
    let mut failures = Vec::new();
    for (expression, _) in wrong {
        if let Ok(found) = values(&[expression]) {
            failures.push(format!("{expression} => error, found {}", found[0]));
        }
    }
    for group in right.chunks(30) {
        let expressions: Vec<&str> = group.iter().map(|(expression, _)| *expression).collect();
        // Where one fails, each is looked at alone.
        let found: Vec<String> = values(&expressions).unwrap_or_else(|_| {
            let alone = |expression: &&str| values(&[*expression]).map_or_else(|error| error, |found| found[0].clone());
            expressions.iter().map(alone).collect()
        });
        for ((expression, expected), found) in group.iter().zip(found) {
            if found != if *expected == "NULL" { "" } else { *expected } {
                failures.push(format!("{expression} => {expected}, found {found}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), lines.len(), failures.join("\n"));
}

#[test]
fn what_is_not_there_is_refused_with_what_to_write() {
    let refused = |call: &str| crate::error(&format!("SELECT {call} FROM flights"));
    assert!(refused("LENGTH(carrier)").contains("write CHAR_LENGTH(text)"), "{}", refused("LENGTH(carrier)"));
    assert!(refused("DATE_TRUNC('hour', departed_at)").contains("write FLOOR(timestamp TO unit)"));
    assert!(refused("TYPEOF(delay)").contains("Flink's TYPEOF is not supported yet"));
    assert!(refused("GETDATE()").contains("write CURRENT_TIMESTAMP"));
    assert!(refused("TO_LOCAL_TIME(departed_at)").contains("Flink has no function of that name"));
}
