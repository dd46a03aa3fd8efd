//! `coulee connectors`: the reference of connectors and their options, from what they declare.

use coulee_server::{COMMON_OPTIONS, Engine, EngineSettings, OptionSpec};

use crate::args::Connectors;
use crate::failure::Failure;
use crate::rows::text_table;
use crate::screen;

/// Runs the command.
pub async fn connectors(args: Connectors) -> Result<(), Failure> {
    // Connectors live in an engine; this one has nothing else to do.
    let folder = tempfile::tempdir().map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
    let engine = Engine::open(folder.path(), EngineSettings::default())?;
    let text = match &args.name {
        None => {
            let row = |connector: &str, options: usize| vec![connector.to_owned(), options.to_string()];
            let rows: Vec<Vec<String>> =
                engine.connectors().iter().map(|connector| row(connector.name(), connector.options().len())).collect();
            let list = text_table(&["CONNECTOR", "OPTIONS"], &[false, true], &rows);
            format!(
                "{list}\nOptions of every table:\n{}\nOptions of one: coulee connectors NAME\n",
                of(COMMON_OPTIONS.iter().copied())
            )
        }
        Some(name) => {
            let connector = engine.connectors().get(name).map_err(coulee_server::Error::from)?;
            of(connector.options())
        }
    };
    screen::data(text.as_bytes())
}

fn of(options: impl IntoIterator<Item = OptionSpec>) -> String {
    let mut lines = Vec::new();
    for option in options {
        let default = option.default.map_or(String::new(), |default| format!(", default '{default}'"));
        lines.push(format!("  '{}': {}{default}\n      {}\n", option.key, option.kind, option.description));
    }
    lines.concat()
}
