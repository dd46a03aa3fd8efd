//! Tables and views that outlive their script.

use std::sync::Arc;

use coulee_sql::{CatalogChange, Definitions, Effect, SqlError, parse_script};

use crate::session_of;

const FLIGHTS: &str = "CREATE TABLE flights (carrier STRING, delay INT) WITH ('connector' = 'fake')";

/// A data folder's catalog.
#[derive(Default)]
struct Folder {
    kept: Arc<Definitions>,
    /// What the last script said beside what it did.
    notes: Vec<String>,
    /// What the last script has taken over.
    taken: Vec<String>,
}

impl Folder {
    /// Runs a script of a name, and keeps what it asks for.
    fn run(&mut self, name: &str, script: &str) -> Result<Vec<Effect>, SqlError> {
        let mut session = session_of(name, 1, self.kept.clone());
        self.notes.clear();
        let mut effects = Vec::new();
        for statement in parse_script(script, &format!("{name}.sql"))? {
            effects.push(session.execute(&statement)?);
            self.notes.extend(session.take_notes());
            for change in session.take_catalog_changes() {
                match change {
                    CatalogChange::Keep(name, definition) => Arc::make_mut(&mut self.kept).insert(name, definition),
                    CatalogChange::Forget(name) => Arc::make_mut(&mut self.kept).remove(&name),
                };
            }
        }
        self.taken = session.taken_over().keys().cloned().collect();
        // A job of the script is planned again from what was taken over, whatever is kept by then.
        let mut again = session_of(name, 1, Arc::new(session.taken_over().clone()));
        for statement in parse_script(script, &format!("{name}.sql"))? {
            again.execute(&statement).expect("the script is planned again");
        }
        Ok(effects)
    }

    fn fails(&mut self, script: &str) -> String {
        self.run("other", script).expect_err("an error").to_string()
    }

    fn names(&self) -> Vec<&str> {
        self.kept.keys().map(String::as_str).collect()
    }
}

fn folder(script: &str) -> Folder {
    let mut folder = Folder::default();
    folder.run("first", script).expect("the first script");
    folder
}

#[test]
fn what_a_script_declares_is_there_for_the_next() {
    let mut folder = folder(&format!(
        "{FLIGHTS}; CREATE VIEW late AS SELECT carrier, delay AS minutes FROM flights WHERE delay > 0; CREATE TABLE out (carrier STRING) WITH ('connector' = 'fake')"
    ));
    assert_eq!(folder.names(), ["flights", "late", "out"]);
    let effects = folder.run("other", "INSERT INTO out SELECT carrier FROM late WHERE minutes > 9").expect("a job");
    let [Effect::Insert(job)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(job.tables, ["flights", "out"]);
    assert_eq!(job.declared["flights"], "first.sql:1:1");
    assert_eq!(folder.taken, ["flights", "late", "out"]);
    assert_eq!(folder.notes, Vec::<String>::new());
}

#[test]
fn only_what_a_script_names_is_taken_over() {
    let mut folder = folder(&format!("{FLIGHTS}; CREATE TABLE b (x INT) WITH ('connector' = 'fake')"));
    folder.run("other", "SELECT x FROM b").expect("a query");
    assert_eq!(folder.taken, ["b"]);
    assert!(folder.fails("SELECT * FROM flight").contains("did you mean 'flights'"));
}

#[test]
fn a_temporary_one_ends_with_its_script() {
    let mut folder =
        folder(&format!("{}; CREATE TEMPORARY VIEW v AS SELECT 1 AS a", FLIGHTS.replace("TABLE", "TEMPORARY TABLE")));
    assert_eq!(folder.names(), Vec::<&str>::new());
    folder.run("first", &format!("{FLIGHTS}; DROP TABLE flights")).expect("a script");
    assert_eq!(folder.names(), Vec::<&str>::new());
}

#[test]
fn a_script_that_is_brought_again_may_declare_otherwise() {
    let mut folder = folder(FLIGHTS);
    folder.run("first", &FLIGHTS.replace("delay INT", "delay BIGINT")).expect("the script, edited");
    assert!(folder.kept["flights"].text.contains("BIGINT"));
    assert_eq!(folder.notes, Vec::<String>::new());
}

#[test]
fn another_script_that_declares_otherwise_goes_by_its_own() {
    let mut folder = folder(FLIGHTS);
    let own = FLIGHTS.replace("delay INT", "distance INT");
    folder
        .run("other", &format!("{own}; SELECT distance FROM flights; DROP TABLE flights; SELECT delay FROM flights"))
        .expect("a script");
    assert_eq!(folder.kept["flights"].text, FLIGHTS);
    let [note] = &folder.notes[..] else { panic!("{:?}", folder.notes) };
    assert!(note.contains("table 'flights' is kept as first.sql:1:1 declares it"), "{note}");
    folder
        .run("other", &format!("SELECT delay FROM flights; {own}; SELECT distance FROM flights"))
        .expect("one after it was read");
}

#[test]
fn the_same_declaration_in_other_words_is_no_other_one() {
    let mut folder = folder(FLIGHTS);
    let spaced =
        "create table if not exists flights (carrier string, -- the airline\n delay int)\n with ('connector' = 'fake')";
    folder.run("other", spaced).expect("the table again");
    folder.run("third", &spaced.replace("if not exists ", "")).expect("the table again");
    assert_eq!(folder.notes, Vec::<String>::new());
    assert_eq!(folder.kept.len(), 1);
}

#[test]
fn what_is_dropped_is_gone() {
    let mut folder = folder(&format!("{FLIGHTS}; CREATE VIEW v AS SELECT carrier FROM flights"));
    assert!(folder.fails("DROP VIEW flights").contains("'flights' is a table"));
    assert!(folder.fails("DROP TEMPORARY TABLE flights").contains("unknown table 'flights'"));
    folder.run("other", "DROP TABLE flights; DROP TABLE IF EXISTS flights").expect("a script");
    assert_eq!(folder.names(), ["v"]);
    let error = folder.fails("SELECT * FROM v");
    assert!(
        error
            .contains("the view that first.sql:1:79 has declared cannot be used: unknown table 'flights'; DROP VIEW v"),
        "{error}"
    );
    folder.run("other", "DROP VIEW v").expect("what cannot be planned can be dropped");
    assert_eq!(folder.names(), Vec::<&str>::new());
}

#[test]
fn a_view_is_not_read_over_another_table_than_it_was_made_for() {
    let mut folder = folder(&format!("{FLIGHTS}; CREATE VIEW v AS SELECT carrier FROM flights"));
    let error =
        folder.fails("CREATE TEMPORARY TABLE flights (carrier INT) WITH ('connector' = 'fake'); SELECT * FROM v");
    assert!(error.contains("this script declares 'flights' otherwise; give its own 'flights' another name"), "{error}");
    let error = folder.fails("CREATE TEMPORARY TABLE flights (other INT) WITH ('connector' = 'fake'); SELECT * FROM v");
    assert!(error.contains("this script declares 'flights' otherwise"), "whatever else is wrong then: {error}");
    folder
        .run("other", "CREATE TEMPORARY TABLE carrier (x INT) WITH ('connector' = 'fake'); SELECT * FROM v")
        .expect("a column of a view may be called as a table of the script");
}

#[test]
fn a_change_is_kept() {
    let mut folder = folder(FLIGHTS);
    folder
        .run("other", "ALTER TABLE flights ADD origin STRING; ALTER TABLE flights RENAME TO departures")
        .expect("a script");
    assert_eq!(folder.names(), ["departures"]);
    folder.run("third", "SELECT origin FROM departures; CREATE OR REPLACE VIEW v AS SELECT 1 AS a").expect("a query");
    folder.run("fourth", "CREATE OR REPLACE VIEW v AS SELECT 2 AS b").expect("a view");
    assert!(folder.kept["v"].text.contains("2 AS b"));
}

#[test]
fn a_new_name_must_be_free_of_what_is_kept() {
    let mut folder =
        folder(&format!("{FLIGHTS}; CREATE VIEW v AS SELECT carrier FROM flights; CREATE VIEW w AS SELECT 1 AS a"));
    for rename in ["ALTER VIEW v RENAME TO w", "ALTER VIEW v RENAME TO flights", "ALTER TABLE flights RENAME TO v"] {
        assert!(folder.fails(rename).contains("exists already"), "{rename}");
    }
    folder.run("other", "DROP TABLE flights").expect("a script");
    let broken = folder.fails("ALTER VIEW w RENAME TO v");
    assert!(broken.contains("view 'v' exists already"), "also of one that cannot be planned any more: {broken}");
    assert_eq!(folder.names(), ["v", "w"]);
}

#[test]
fn a_kept_view_that_cannot_be_planned_any_more_gets_another_query() {
    let mut folder = folder(&format!("{FLIGHTS}; CREATE VIEW v AS SELECT carrier FROM flights"));
    folder.run("other", "DROP TABLE flights; ALTER VIEW v AS SELECT 2 AS b").expect("a script");
    folder.run("third", "SELECT b FROM v").expect("the other query is kept");
}

#[test]
fn a_statement_that_fails_keeps_nothing() {
    let mut folder = folder(FLIGHTS);
    folder.fails("CREATE TABLE out WITH ('connector' = 'bare') AS SELECT nothing FROM flights");
    folder.fails("CREATE VIEW v AS SELECT nothing FROM flights");
    assert_eq!(folder.names(), ["flights"]);
}

#[test]
fn kept_ones_are_shown() {
    let mut folder = folder(&format!("{FLIGHTS}; CREATE VIEW v AS SELECT carrier FROM flights"));
    let effects = folder
        .run("other", "SHOW TABLES; SHOW VIEWS; SHOW CREATE TABLE flights; DESCRIBE v; SHOW TABLES")
        .expect("a script");
    let shown: Vec<String> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Table(rows) => format!("{:?}", rows.column(0)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(shown[0].contains("flights") && shown[0].contains("\"v\""), "{}", shown[0]);
    assert!(!shown[1].contains("flights") && shown[1].contains("\"v\""), "{}", shown[1]);
    assert!(shown[2].contains("CREATE TABLE flights"), "{}", shown[2]);
    assert!(shown[3].contains("carrier"), "{}", shown[3]);
    assert_eq!(shown[0], shown[4]);
}
