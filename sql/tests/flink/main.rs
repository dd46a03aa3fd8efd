//! Coulee's SQL against values from a real Flink: `tests/flink/README.md` says what the files hold.
//!
//! `FLINK_FAMILY=cast,math` compares these families only. Every expression is evaluated as Flink evaluated it: with its operands as literals, and with
//! its operands as columns.

#[path = "../sql/connector.rs"]
mod connector;
mod evaluate;
mod expected;
mod print;
mod verdict;

use std::collections::BTreeSet;

use evaluate::Evaluator;
use expected::{Form, Line, Outcome};
use verdict::{Entries, Verdict};

/// How many differences are meant at most.
const DIFFERENCES_MAX: usize = 10;
/// How many lines a failure shows of each kind.
const SHOWN_MAX: usize = 2000;

#[test]
fn expressions_give_flinks_types_and_values() {
    let chosen = std::env::var("FLINK_FAMILY").ok();
    let families = expected::families(chosen.as_deref());
    assert!(!families.is_empty(), "tests/flink/expected holds no family {chosen:?}");
    let mut verdicts = Vec::new();
    let mut evaluator = Evaluator::new();
    for family in &families {
        for section in &family.sections {
            evaluator.rows(section.rows.as_ref());
            for line in &section.lines {
                let compared = compare(&mut evaluator, line);
                verdicts.extend(compared.into_iter().map(|verdict| (family.name.clone(), verdict)));
            }
        }
    }
    let refused = Entries::read("refused.txt");
    let differences = Entries::read("differences.txt");
    assert!(differences.reasons < DIFFERENCES_MAX, "{} differences have reasons", differences.reasons);
    let mut failures = Vec::new();
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut counts = [0_usize; 4];
    for (family, verdict) in &verdicts {
        let entry = match verdict {
            Verdict::Equal => {
                counts[0] += 1;
                continue;
            }
            // A literal whose value is meant to differ may be refused as soon as the statement is planned.
            Verdict::Refused { expression, .. } => {
                refused.matching(expression).or_else(|| differences.matching(expression))
            }
            Verdict::Different { expression, .. } => differences.matching(expression),
        };
        match entry {
            Some(entry) => {
                counts[if matches!(verdict, Verdict::Refused { .. }) { 1 } else { 2 }] += 1;
                used.insert(entry);
            }
            None => {
                counts[3] += 1;
                failures.push(format!("{family}: {verdict}"));
            }
        }
    }
    println!("{} equal, {} refused, {} meant to differ, {} not listed", counts[0], counts[1], counts[2], counts[3]);
    if chosen.is_none() {
        let unused = refused.patterns().chain(differences.patterns()).filter(|pattern| !used.contains(*pattern));
        failures.extend(unused.map(|pattern| format!("the entry '{pattern}' is not needed any more")));
    }
    let shown = failures.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} expressions are not as in Flink:\n{shown}", failures.len());
}

/// What Coulee makes of a line, in each of its forms. Where Flink gives another result for literals than for columns, the literal may give either.
fn compare(evaluator: &mut Evaluator, line: &Line) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut judge = |form: Form, outcomes: &[&Outcome]| {
        let ours = evaluator.evaluate(&line.expression, form);
        let judged = outcomes.iter().map(|flink| judged(&line.expression, form, flink, ours.clone()));
        let judged: Vec<Verdict> = judged.collect();
        let equal = judged.iter().position(|verdict| matches!(verdict, Verdict::Equal));
        verdicts.extend(judged.into_iter().nth(equal.unwrap_or(0)));
    };
    match (line.outcome(Form::Literal), line.outcome(Form::Column)) {
        (Some(literal), Some(column)) => {
            judge(Form::Literal, &[column, literal]);
            judge(Form::Column, &[column]);
        }
        (literal, column) => {
            let both = line.outcomes.first().map(|(_, outcome)| outcome);
            if let Some(outcome) = literal.or(column).or(both) {
                judge(Form::Literal, &[outcome]);
                if line.has_operands() {
                    judge(Form::Column, &[outcome]);
                }
            }
        }
    }
    verdicts
}

fn judged(expression: &str, form: Form, flink: &Outcome, ours: evaluate::Result) -> Verdict {
    let expression = format!("{expression}{}", if form == Form::Literal { "" } else { " (column)" });
    match (flink, ours) {
        (Outcome::Error(_), Err(_)) => Verdict::Equal,
        (Outcome::Value { .. }, Err(evaluate::Failure::Planning(error))) => Verdict::Refused { expression, error },
        (Outcome::Value { data_type, value }, Err(evaluate::Failure::Row(error))) => {
            Verdict::Different { expression, flink: format!("{data_type} | {value}"), ours: format!("error: {error}") }
        }
        (Outcome::Error(error), Ok((data_type, value))) => {
            Verdict::Different { expression, flink: format!("error: {error}"), ours: format!("{data_type} | {value}") }
        }
        (Outcome::Value { data_type, value }, Ok((our_type, our_value))) => {
            if print::same(data_type, value, &our_type, &our_value) {
                return Verdict::Equal;
            }
            let (flink, ours) = (format!("{data_type} | {value}"), format!("{our_type} | {our_value}"));
            Verdict::Different { expression, flink, ours }
        }
    }
}
