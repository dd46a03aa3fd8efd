//! What DataFusion's errors mean to somebody who wrote SQL, and where in it.

use coulee_runtime::options::nearest;
use datafusion_common::{DataFusionError, SchemaError};
use sqlparser::tokenizer::{Location, Span, TokenWithSpan};

use crate::error::Fault;
use crate::script::is_word;
use crate::statement::find;

/// Turns an error of DataFusion's into a fault. The place is what DataFusion says it is, or else the first word that the message quotes.
pub(crate) fn fault(error: &DataFusionError, tokens: &[TokenWithSpan]) -> Fault {
    let diagnostic = error.diagnostic();
    let span = diagnostic.and_then(|diagnostic| diagnostic.span).map(to_span);
    let fault = match error.find_root() {
        DataFusionError::SchemaError(error, _) => schema_fault(error, tokens),
        DataFusionError::Plan(text) if text.starts_with("unknown table ") => plain(text),
        DataFusionError::Plan(text) if text.starts_with("Invalid function '") => {
            Fault::new(format!("unknown function '{}'", quoted(text).next().unwrap_or_default()))
        }
        DataFusionError::Plan(text)
            if text.starts_with("Cannot coerce arithmetic") || text.starts_with("Cannot infer common") =>
        {
            plain(&format!("c{}", &text[1..])).help("CAST one side to the other's type")
        }
        root => match diagnostic {
            Some(diagnostic) => {
                let fault = Fault::new(diagnostic.message.clone());
                let help = diagnostic.helps.first().map(|help| &help.message);
                help.or(diagnostic.notes.first().map(|note| &note.message))
                    .map_or(fault.clone(), |help| fault.help(help))
            }
            None => plain(&message(root)),
        },
    };
    let quoted = quoted(&fault.message).find_map(|word| find(tokens, word));
    fault.or_at(span).or_at(quoted)
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
            Fault::new(message.trim_end_matches('.')).help(format!("{first}{}", chars.as_str()))
        }
        None => Fault::new(text),
    }
}

fn schema_fault(error: &SchemaError, tokens: &[TokenWithSpan]) -> Fault {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            let fault = Fault::new(format!("unknown column '{}'", field.name));
            let fault = match nearest(&field.name, &names) {
                Some(near) => fault.help(format!("did you mean '{near}'?")),
                None if names.is_empty() => {
                    fault.help("there are no columns here: is FROM missing, or the value in front of it?")
                }
                None => fault.help(format!("columns: {}", names.join(", "))),
            };
            fault.or_at(find(tokens, &field.name))
        }
        SchemaError::AmbiguousReference { field } => {
            Fault::new(format!("column '{}' is in more than one of the tables", field.name))
                .help("write the table's name or alias and a dot in front of it")
                .or_at(find(tokens, &field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Fault::new(format!("column '{name}' is there twice"))
                .help("give one of them another name with AS")
                .or_at(find(tokens, name))
        }
    }
}

/// The words of a message that stand in quotes.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split(['\'', '"', '`']).skip(1).step_by(2).filter(|word| !word.is_empty())
}

fn to_span(span: datafusion_common::Span) -> Span {
    let location = |at: datafusion_common::Location| Location::new(at.line, at.column);
    Span::new(location(span.start), location(span.end))
}

/// Where the first of these keywords stands that there is.
pub(crate) fn first_of(tokens: &[TokenWithSpan], words: &[&str]) -> Option<Span> {
    words.iter().find_map(|word| tokens.iter().find(|token| is_word(&token.token, word))).map(|token| token.span)
}
