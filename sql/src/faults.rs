//! What DataFusion's errors mean to somebody who wrote SQL, and what in it they are about.

use std::collections::BTreeSet;

use arrow::error::ArrowError;
use coulee_model::ErrorKind;
use coulee_runtime::Subject;
use coulee_runtime::options::nearest;
use datafusion_common::{DataFusionError, SchemaError, TableReference};

use crate::error::Fault;
use crate::spans::{self, Place};
use crate::types::with_sql_types;

/// Turns an error of DataFusion's into a fault. It is about what DataFusion says it is, or else about the words that the message quotes.
pub(crate) fn fault(error: &DataFusionError) -> Fault {
    let diagnostic = error.diagnostic();
    let span = diagnostic.and_then(|diagnostic| diagnostic.span).map(spans::of_datafusion);
    let fault = match error.find_root() {
        // What code of ours said that DataFusion's planner called.
        DataFusionError::External(cause) if cause.is::<Fault>() => {
            return cause.downcast_ref::<Fault>().cloned().unwrap_or_else(|| Fault::new(cause.to_string()));
        }
        DataFusionError::SchemaError(error, _) => {
            return match span {
                Some(span) => schema_fault(error).at(span),
                None => schema_fault(error),
            };
        }
        DataFusionError::ArrowError(error, _) => arrow_fault(error),
        DataFusionError::Plan(text) if text.starts_with("Invalid function '") => {
            let name = quoted(text).next().unwrap_or_default().to_owned();
            Fault::new(format!("unknown function '{name}'")).about(Subject::Function(name))
        }
        DataFusionError::Plan(text) if text.starts_with("Cannot create filter with non-boolean predicate '") => {
            let found = text.rsplit_once("returning ").map(|(_, found)| with_sql_types(found)).unwrap_or_default();
            let condition = quoted(text).next().unwrap_or_default();
            Fault::new(format!("WHERE and HAVING take a condition, and {condition} is {found}"))
                .or_clause(&["WHERE", "HAVING"])
                .help("compare it with a value")
        }
        DataFusionError::NotImplemented(text) if text.starts_with("GetFieldAccess not supported") => {
            let column = quoted(text).last().unwrap_or_default().to_owned();
            Fault::new("the elements of an array or a map (a[1], m['k']) come in a later version")
                .about(Subject::Column { table: None, column })
                .help("keep it as a column; the fields of a ROW are read by a dot: a.field")
        }
        DataFusionError::Internal(text) | DataFusionError::Plan(text)
            if text.contains("failed to match any signature") =>
        {
            let name = quoted(text).next().unwrap_or_default().to_owned();
            Fault::new(format!("function '{name}' does not take arguments of these types"))
                .about(Subject::Function(name))
                .help("CAST the argument to a type that it takes")
        }
        DataFusionError::Internal(text) => Fault { kind: ErrorKind::Internal, ..plain(&with_sql_types(text)) }
            .help("this is a fault of Coulee: please report it with the statement"),
        DataFusionError::NotImplemented(text) if text.starts_with("Unsupported SQL type ") => {
            let name = text.trim_start_matches("Unsupported SQL type ").to_owned();
            let fault = Fault::new(format!("unknown type '{name}'"));
            let near = nearest(&name.to_uppercase(), crate::types::NAMES).map(|near| format!("did you mean {near}?"));
            fault
                .about(Subject::Function(name))
                .help(near.unwrap_or_else(|| format!("types: {}", crate::types::NAMES.join(", "))))
        }
        DataFusionError::Plan(text)
            if text.starts_with("Cannot coerce arithmetic") || text.starts_with("Cannot infer common") =>
        {
            plain(&with_sql_types(&format!("c{}", &text[1..]))).help("CAST one side to the other's type")
        }
        root => match diagnostic {
            Some(diagnostic) => {
                let fault = Fault::new(with_sql_types(&diagnostic.message));
                let help = diagnostic.helps.first().map(|help| &help.message);
                help.or(diagnostic.notes.first().map(|note| &note.message))
                    .map_or(fault.clone(), |help| fault.help(help))
            }
            None => plain(&with_sql_types(&message(root))),
        },
    };
    let words: Vec<Place> = quoted(&fault.message).map(|word| Place::Word(word.to_owned())).collect();
    let mut fault = fault.or_at(span);
    fault.places.extend(words);
    fault
}

/// What Arrow says of values that an expression without columns has: it is evaluated while the statement is planned.
fn arrow_fault(error: &ArrowError) -> Fault {
    match error {
        ArrowError::CastError(text) | ArrowError::ParseError(text) => {
            let text = text
                .strip_prefix("Cannot cast")
                .map_or_else(|| text.clone(), |rest| format!("CAST fails: cannot cast{rest}"));
            Fault::new(with_sql_types(text.trim_end_matches(" type")))
                .or_clause(&["CAST", "DATE", "TIMESTAMP", "TIME"])
                .help("TRY_CAST gives null for what cannot be converted")
        }
        ArrowError::DivideByZero => {
            Fault::new("a division by zero").help("write NULLIF(divisor, 0), which makes the result null")
        }
        ArrowError::ArithmeticOverflow(text) => {
            Fault::new(format!("a number is too large: {}", with_sql_types(text))).help("CAST to a larger type first")
        }
        ArrowError::InvalidArgumentError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::SchemaError(text)
        | ArrowError::NotYetImplemented(text) => Fault::new(with_sql_types(text)),
        other => Fault::new(with_sql_types(&other.to_string())),
    }
}

fn message(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Configuration(text) => text.clone(),
        other => other.strip_backtrace(),
    }
}

/// A message whose further lines are advice.
fn plain(text: &str) -> Fault {
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(text);
    // What a function of ours says of its arguments comes wrapped in what DataFusion says of functions.
    let text =
        text.rsplit_once("user-defined coercion failed with: Error during planning: ").map_or(text, |(_, own)| own);
    let text =
        text.split_once(" No function matches the given name").map_or(text, |(own, _)| own).trim_end_matches('.');
    match text.split_once('\n') {
        Some((message, help)) => {
            let help = help.trim();
            let mut chars = help.chars();
            let first = chars.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
            // A word in capitals is SQL.
            let help = match chars.as_str().starts_with(char::is_uppercase) {
                true => help.to_owned(),
                false => format!("{first}{}", chars.as_str()),
            };
            Fault::new(message.trim_end_matches('.')).help(help)
        }
        None => Fault::new(text),
    }
}

fn schema_fault(error: &SchemaError) -> Fault {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let is_known = |relation: &TableReference| {
                valid_fields.is_empty() || valid_fields.iter().any(|known| known.relation.as_ref() == Some(relation))
            };
            if let Some(relation) = field.relation.as_ref().filter(|relation| !is_known(relation)) {
                let tables: BTreeSet<&str> =
                    valid_fields.iter().filter_map(|known| Some(known.relation.as_ref()?.table())).collect();
                let tables: Vec<&str> = tables.into_iter().collect();
                return Fault::new(format!("unknown table or alias '{}'", relation.table()))
                    .about(Subject::Table(relation.table().to_owned()))
                    .help(format!("FROM has {}", tables.join(", ")));
            }
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            let fault = Fault::new(format!("unknown column '{}'", field.name));
            let fault = match nearest(&field.name, &names) {
                Some(near) => fault.help(format!("did you mean '{near}'?")),
                None if names.is_empty() => {
                    fault.help("there are no columns here: is FROM missing, or the value in front of it?")
                }
                None => fault.help(format!("columns: {}", names.join(", "))),
            };
            let table = field.relation.as_ref().map(|relation| relation.table().to_owned());
            fault.about(Subject::Column { table, column: field.name.clone() })
        }
        SchemaError::AmbiguousReference { field } => {
            Fault::new(format!("column '{}' is in more than one of the tables", field.name))
                .help("write the table's name or alias and a dot in front of it")
                .about(Subject::Column { table: None, column: field.name.clone() })
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Fault::new(format!("column '{name}' is there twice"))
                .help("give one of them another name with AS")
                .about(Subject::Column { table: None, column: name.clone() })
        }
    }
}

/// The words of a message that stand in quotes.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split(['\'', '"', '`']).skip(1).step_by(2).filter(|word| !word.is_empty())
}
