//! What is wrong, where, and what to write instead.

use std::cell::RefCell;

use coulee_sql::parse_script;

use crate::{error, golden};

#[test]
fn errors_show_the_place_and_give_advice() {
    let accepted = RefCell::new(Vec::new());
    golden::check("errors.txt", |script| {
        let shown = error(script);
        if shown == "no error" {
            accepted.borrow_mut().push(script.to_owned());
        }
        shown
    });
    assert!(accepted.borrow().is_empty(), "no errors: {:#?}", accepted.borrow());
}

#[test]
fn no_prefix_of_a_statement_panics() {
    let statements = format!(
        "{} EXECUTE STATEMENT SET BEGIN INSERT INTO copy (carrier) SELECT DISTINCT `carrier` FROM TABLE(TUMBLE(DATA => TABLE flights, \
         TIMECOL => DESCRIPTOR(departed_at), SIZE => INTERVAL '1' HOUR)) AS w (a, b) WHERE a <> 'x' GROUP BY 1 HAVING COUNT(*) > 1; END",
        crate::TABLES
    );
    for end in (0..statements.len()).filter(|end| statements.is_char_boundary(*end)) {
        let mut session = crate::session(2);
        // Most prefixes are errors; none may be anything worse.
        let Ok(parsed) = parse_script(&statements[..end], "x.sql") else { continue };
        for statement in &parsed {
            let _ = session.execute(statement).map_err(|error| error.to_string());
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    for script in [
        format!("SELECT {}1{} FROM flights", "(".repeat(5_000), ")".repeat(5_000)),
        format!("CREATE TABLE t (a {}INT{})", "ARRAY<".repeat(5_000), ">".repeat(5_000)),
        "EXPLAIN ".repeat(5_000),
    ] {
        assert!(parse_script(&script, "x.sql").is_err());
    }
}
