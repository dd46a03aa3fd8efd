//! What users write and what they get: statements in, errors with carets and explained graphs out.

mod connector;
mod ddl;
mod errors;
mod evaluation;
mod functions;
mod golden;
mod hints;
mod identity;
mod kept;
mod limits;
mod plans;

use coulee_runtime::table::Connectors;
use coulee_sql::{Definitions, Effect, Session, SessionDefaults, SqlError, parse_script};
use std::sync::Arc;

use connector::{Fake, FakeSink};

/// Tables that most tests read and write.
const TABLES: &str = "
CREATE TABLE flights (
  carrier STRING NOT NULL,
  origin STRING,
  delay INT,
  departed_at TIMESTAMP(3),
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH ('connector' = 'fake');
CREATE TABLE corrections (
  carrier STRING,
  delay INT,
  departed_at TIMESTAMP(3),
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH ('connector' = 'fake', 'changes' = 'true');
CREATE TABLE delays (carrier STRING, window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'fake');
CREATE TABLE copy (carrier STRING, delay BIGINT) WITH ('connector' = 'fake');
";

fn session(parallelism: u32) -> Session {
    session_of("job", parallelism, Arc::default())
}

/// A session of a script of a name, over a folder that keeps tables.
fn session_of(name: &str, parallelism: u32, kept: Arc<Definitions>) -> Session {
    let connectors = Connectors::default().with(Arc::new(Fake("fake"))).with(Arc::new(Fake("stream")));
    let connectors = connectors.with(Arc::new(Fake("bare")));
    let query_sink: coulee_sql::QuerySink = Arc::new(|_, is_changelog| Arc::new(FakeSink::screen(is_changelog)));
    Session::new(connectors, SessionDefaults { job_name: name.into(), parallelism, query_sink: Some(query_sink) }, kept)
}

fn run_all(session: &mut Session, script: &str) -> Result<Vec<Effect>, SqlError> {
    parse_script(script, "x.sql")?.iter().map(|statement| session.execute(statement)).collect()
}

/// Executes a script behind [`TABLES`] and returns what its last statement did.
fn run(parallelism: u32, script: &str) -> Result<Effect, SqlError> {
    let mut session = session(parallelism);
    run_all(&mut session, TABLES).expect("the tables");
    Ok(run_all(&mut session, script)?.pop().expect("a statement"))
}

/// What `EXPLAIN` says of the last statement.
fn explained(parallelism: u32, script: &str) -> String {
    match run(parallelism, script) {
        Ok(Effect::Explain(text)) => text,
        Ok(other) => panic!("{script}: {other:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// The error of a script behind [`TABLES`], as it is shown.
fn error(script: &str) -> String {
    match run(1, script) {
        Ok(_) => "no error".into(),
        Err(error) => error.to_string(),
    }
}
