//! Reads `tests/flink/expected/*.txt`.

use std::path::{Path, PathBuf};

/// Whether an expression's operands are literals or columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Literal,
    Column,
}

/// What Flink gave.
#[derive(Debug)]
pub enum Outcome {
    Value { data_type: String, value: String },
    Error(String),
}

/// One expression, and what it gave: in both forms (`None`), or in each.
#[derive(Debug)]
pub struct Line {
    pub expression: String,
    pub outcomes: Vec<(Option<Form>, Outcome)>,
}

impl Line {
    pub fn has_operands(&self) -> bool {
        crate::evaluate::operands(&self.expression).1.len() > 1
    }

    /// What Flink gave in one form only.
    pub fn outcome(&self, form: Form) -> Option<&Outcome> {
        self.outcomes.iter().find(|(of, _)| *of == Some(form)).map(|(_, outcome)| outcome)
    }
}

/// Input rows of aggregates: columns, and a line of literals per row.
#[derive(Debug)]
pub struct Rows {
    pub columns: String,
    pub rows: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Section {
    pub rows: Option<Rows>,
    pub lines: Vec<Line>,
}

#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub sections: Vec<Section>,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/flink")
}

/// The families of the expected files, or those that a list separated by commas names.
pub fn families(chosen: Option<&str>) -> Vec<Family> {
    let entries = std::fs::read_dir(folder().join("expected")).expect("tests/flink/expected");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let is_chosen = |path: &PathBuf| chosen.is_none_or(|chosen| chosen.split(',').any(|family| family == name(path)));
    paths.iter().filter(|path| is_chosen(path)).map(|path| read(name(path), path)).collect()
}

fn read(name: String, path: &Path) -> Family {
    let text = std::fs::read_to_string(path).expect("a file of expected values");
    let mut sections = vec![Section::default()];
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    while let Some(line) = lines.next() {
        if let Some(columns) = line.strip_prefix("%rows ") {
            let rows = lines.by_ref().take_while(|line| *line != "%end").map(str::to_owned).collect();
            sections.push(Section { rows: Some(Rows { columns: columns.to_owned(), rows }), lines: Vec::new() });
            continue;
        }
        let section = sections.last_mut().expect("a section");
        let (expression, form, outcome) = cut(line);
        match section.lines.last_mut() {
            Some(last) if form == Some(Form::Column) && last.expression == expression => {
                last.outcomes.push((form, outcome));
            }
            _ => section.lines.push(Line { expression: expression.to_owned(), outcomes: vec![(form, outcome)] }),
        }
    }
    Family { name, sections }
}

fn cut(line: &str) -> (&str, Option<Form>, Outcome) {
    let arrows = [(" =literal=> ", Some(Form::Literal)), (" =column=> ", Some(Form::Column)), (" => ", None)];
    let found = arrows.iter().find_map(|(arrow, form)| Some((line.split_once(arrow)?, *form)));
    let ((expression, outcome), form) = found.unwrap_or_else(|| panic!("no arrow in '{line}'"));
    let outcome = match outcome.strip_prefix("error: ") {
        Some(error) => Outcome::Error(error.to_owned()),
        None => {
            let (data_type, value) = outcome.split_once(" | ").unwrap_or_else(|| panic!("no value in '{line}'"));
            Outcome::Value { data_type: data_type.to_owned(), value: value.to_owned() }
        }
    };
    (expression, form, outcome)
}
