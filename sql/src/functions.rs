//! The functions that SQL may call: an allow-list.
//!
//! Each scalar function is declared in the table of its family: names, arguments, type, implementation, documentation. Its values are compared with those of
//! a real Flink (`tests/flink`). A function that stands in no table is refused by name: of Flink's that are missing, [`unknown`] says so; of DataFusion's,
//! that Flink has none of the name, and what to write instead.

mod call;
pub(crate) mod call_syntax;
mod chance;
pub(crate) mod clock;
mod collection;
mod datetime;
mod definition;
mod encoding;
pub(crate) mod event_time;
mod extract;
mod hash;
mod java_format;
mod java_parse;
mod java_pattern;
mod java_regex;
mod json;
mod json_build;
mod json_path;
mod json_query;
mod json_syntax;
pub(crate) mod lag_lead;
mod mark;
mod math;
mod moment;
mod printf;
pub(crate) mod ranking;
mod regex;
mod rounding;
pub(crate) mod row_time;
pub(crate) mod share;
mod simple_date;
pub(crate) mod syntax;
mod text;
mod timestamp_math;
mod unknown;
mod url;
mod utf16;
mod zone;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{Expr, ScalarUDF, WindowUDF};

pub(crate) use collection::Access;
use definition::{Function, Scalar};
pub(crate) use unknown::unknown;
use zone::Zone;

/// The tables of all families, under their titles in the documentation.
const FAMILIES: &[(&str, &[Function])] = &[
    ("Text", text::TEXT),
    ("Formatted text", printf::PRINTF),
    ("Regular expressions", regex::REGEX),
    ("Hashes", hash::HASH),
    ("Encodings", encoding::ENCODING),
    ("URLs", url::URL),
    ("Numbers", math::MATH),
    ("Rounding", rounding::ROUNDING),
    ("Parts of times", extract::EXTRACT),
    ("Arithmetic of times", timestamp_math::TIMESTAMP_MATH),
    ("Times from and to text and numbers", datetime::DATETIME),
    ("The clock", clock::CLOCK),
    ("Chance", chance::CHANCE),
    ("Looking into JSON", json_query::JSON_QUERY),
    ("Making JSON", json_build::JSON_BUILD),
    ("Arrays and maps", collection::COLLECTION),
];

/// What chooses among its arguments: name, usage, what it gives (`flink_types::conditional`).
const CONDITIONALS: &[(&str, &str, &str)] = &[
    ("IF", "IF(condition, value, other)", "the value if the condition is true, else the other"),
    ("COALESCE", "COALESCE(value, …)", "the first value that is not null"),
    ("IFNULL", "IFNULL(value, other)", "the value, or the other if it is null"),
    ("NULLIF", "NULLIF(value, other)", "null if the two are equal, else the value"),
    ("GREATEST", "GREATEST(value, …)", "the greatest value; null if one is null"),
    ("LEAST", "LEAST(value, …)", "the least value; null if one is null"),
];

fn declared() -> impl Iterator<Item = &'static Function> {
    FAMILIES.iter().flat_map(|(_, family)| family.iter())
}

/// The scalar functions, by lower-case name, of a session in a time zone (`None`: UTC).
pub(crate) fn scalars(zone: Option<&crate::zone::Zone>) -> HashMap<String, Arc<ScalarUDF>> {
    let zone = zone.and_then(|zone| Zone::of_offset(zone.name()).or(Zone::named(zone.name()))).unwrap_or(Zone::UTC);
    let mut functions = HashMap::new();
    for function in declared() {
        let scalar = Arc::new(ScalarUDF::new_from_impl(Scalar::new(function, zone)));
        for name in function.aliases.iter().chain([&function.name]) {
            functions.insert(name.to_lowercase(), Arc::clone(&scalar));
        }
    }
    functions.extend(crate::flink_types::functions());
    functions
}

/// The function in an expression whose value is another one each time that it is computed, as SQL names it.
pub(crate) fn varying(expr: &Expr) -> Option<&'static str> {
    let mut found = None;
    // The closure never fails.
    let _ = expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr
            && let Some(own) = call.func.inner().downcast_ref::<Scalar>()
            && own.varies()
        {
            found = Some(own.name_of());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// How a function is called, and what it gives.
pub(crate) fn described(name: &str) -> Option<(&'static str, &'static str)> {
    let upper = name.to_uppercase();
    let own = declared().find(|function| function.name == upper || function.aliases.contains(&upper.as_str()));
    let conditional = CONDITIONALS.iter().find(|(name, ..)| *name == upper).map(|(_, usage, about)| (*usage, *about));
    conditional.or(own.map(|function| (function.usage, function.about)))
}

/// The function that takes an OVER clause and is no aggregate, of a name in small letters.
pub(crate) fn window_function(name: &str) -> Option<Arc<WindowUDF>> {
    ranking::ranking(name)
        .or_else(|| lag_lead::shift(name))
        .or_else(|| share::share(name))
        .or_else(|| crate::aggregates::values::with_over(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_declared_once_and_documented() {
        let mut names: Vec<&str> =
            declared().flat_map(|function| function.aliases.iter().copied().chain([function.name])).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name is declared twice");
        for function in declared() {
            assert!(function.name == function.name.to_uppercase() && !function.about.is_empty(), "{}", function.name);
            assert!(function.name.contains(' ') || function.usage.starts_with(function.name), "{}", function.usage);
        }
    }

    /// The page of the documentation that lists all functions.
    fn page() -> String {
        let mut page = String::from(
            "# Scalar functions\n\nFlink's, with Flink's values: each is compared with a real Flink (`tests/flink`). This page is written by a test; \
             `SHOW FUNCTIONS` says the same.\n\n## Conditionals\n\n| function | gives |\n| --- | --- |\n",
        );
        for (_, usage, about) in CONDITIONALS {
            page += &format!("| `{usage}` | {about} |\n");
        }
        for (title, family) in FAMILIES {
            page += &format!("\n## {title}\n\n| function | gives |\n| --- | --- |\n");
            // What returns several types is one function to who writes SQL.
            let mut usages: Vec<&str> = Vec::new();
            for function in family.iter().filter(|function| !function.usage.is_empty()) {
                if usages.contains(&function.usage) {
                    continue;
                }
                usages.push(function.usage);
                let cell = |text: &str| text.replace('|', "\\|");
                let also: String = function.aliases.iter().map(|alias| format!(", `{alias}`")).collect();
                page += &format!("| `{}`{also} | {} |\n", cell(function.usage), cell(function.about));
            }
        }
        page
    }

    /// `COULEE_REWRITE=1` writes the page anew.
    #[test]
    fn the_documentation_lists_all_functions() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/functions.md");
        if std::env::var_os("COULEE_REWRITE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page(), "run the test with COULEE_REWRITE=1");
    }
}
