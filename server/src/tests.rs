//! The engine as a whole: scripts, jobs and streams over a real folder, also through the gRPC service.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coulee_connectors::PrintTarget;
use coulee_log::Isolation;
use coulee_model::{SequenceNumber, ShardId, StreamName};
use coulee_runtime::Batch;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::client::{Client, in_process};
use crate::proto;
use crate::{
    Closing, Components, Engine, EngineSettings, Error, JobState, Script, ScriptEvent, ScriptRun, Start, query_rows,
};

const ROWS: usize = 1_000;

/// A folder with input, and a script that copies it to Parquet.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..ROWS).map(|n| format!("{{\"n\":{n},\"k\":\"k{}\"}}\n", n % 7)).collect();
    std::fs::write(dir.path().join("in.ndjson"), lines).unwrap();
    dir
}

fn copy_script(dir: &Path, source_options: &str) -> String {
    let dir = dir.display();
    format!(
        "CREATE TABLE source (n BIGINT, k STRING)
           WITH ('connector' = 'filesystem', 'path' = '{dir}/in.ndjson', 'format' = 'json'{source_options});
         CREATE TABLE copied (n BIGINT, k STRING)
           WITH ('connector' = 'filesystem', 'path' = '{dir}/out', 'format' = 'parquet');
         INSERT INTO copied SELECT n, k FROM source WHERE n >= 10;"
    )
}

fn open(dir: &Path) -> Arc<Engine> {
    Engine::open(&dir.join("data"), EngineSettings::default()).unwrap()
}

fn script(text: String) -> Script {
    Script { text, origin: "copy.sql".into(), ..Script::default() }
}

async fn run(engine: &Arc<Engine>, script: Script) -> (Result<ScriptRun, Error>, Vec<ScriptEvent>) {
    let (events, mut received) = mpsc::unbounded_channel();
    let ran = engine.run_script(script, events).await;
    let mut all = Vec::new();
    while let Some(event) = received.recv().await {
        all.push(event);
    }
    (ran, all)
}

/// Waits for a condition that will come true.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within 30 s");
}

fn delivered(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_becomes_parquet_and_running_it_again_says_so() {
    let dir = folder();
    let engine = open(dir.path());
    let (ran, _) = run(&engine, script(copy_script(dir.path(), ""))).await;
    assert_eq!(ran.unwrap().running.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["copy"]);
    let job = engine.wait_job("copy").await.unwrap();
    assert_eq!(job.state, JobState::Finished, "{job:?}");
    let progress = job.progress.unwrap();
    assert_eq!((progress.rows_read, progress.rows_written), (ROWS as u64, ROWS as u64 - 10));
    let pages = engine.first_pages("copy", 20).await.unwrap();
    assert_eq!((pages[0].rows.num_rows(), pages[0].total), (20, ROWS as u64 - 10));

    let files = delivered(dir.path());
    drop(engine);
    let engine = open(dir.path());
    let (ran, events) = run(&engine, script(copy_script(dir.path(), ""))).await;
    assert!(ran.unwrap().running.is_empty());
    assert!(
        events.iter().any(|event| matches!(event, ScriptEvent::AlreadyFinished(job) if job.name.as_str() == "copy"))
    );
    assert_eq!(delivered(dir.path()), files);

    let (ran, _) = run(&engine, Script { fresh: true, ..script(copy_script(dir.path(), "")) }).await;
    ran.unwrap();
    assert_eq!(engine.wait_job("copy").await.unwrap().state, JobState::Finished);
    assert!(delivered(dir.path()).iter().all(|file| !files.contains(file)), "what was delivered before is gone");
    assert_eq!(engine.first_pages("copy", 1).await.unwrap()[0].total, ROWS as u64 - 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_job_goes_on_where_it_was() {
    let dir = folder();
    let engine = open(dir.path());
    // Two seconds of reading: to be stopped in the middle also by a machine that is slow to do so.
    let text = copy_script(dir.path(), ", 'scan.rate-limit' = '500'");
    run(&engine, script(text.clone())).await.0.unwrap();
    until(|| engine.job("copy").unwrap().progress.is_some_and(|progress| progress.rows_read > 0)).await;
    let stopped = engine.stop_job("copy").await.unwrap();
    assert_eq!(stopped.state, JobState::Stopped);
    let before = stopped.progress.unwrap();
    assert!(before.rows_read < ROWS as u64, "it was stopped in the middle");
    engine.close(Closing::Pause).await;
    drop(engine);

    let engine = open(dir.path());
    assert_eq!(engine.job("copy").unwrap().state, JobState::Stopped);
    let started = engine.start_job(Start::of("copy")).await.unwrap();
    assert_eq!(started.state, JobState::Running);
    let running = engine.start_job(Start::of("copy")).await.unwrap_err();
    assert!(running.to_string().contains("job 'copy' is running"), "{running}");
    let job = engine.wait_job("copy").await.unwrap();
    assert_eq!(job.state, JobState::Finished, "{job:?}");
    let after = job.progress.unwrap();
    assert_eq!((after.rows_read, after.rows_restored), (ROWS as u64, before.rows_read));
    let finished = engine.start_job(Start::of("copy")).await.unwrap_err();
    assert!(finished.to_string().contains("job 'copy' has finished"), "{finished}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_resumes_what_was_running_and_not_what_was_stopped() {
    let dir = folder();
    let engine = open(dir.path());
    let text = copy_script(dir.path(), ", 'scan.rate-limit' = '1000'");
    run(&engine, script(text.clone())).await.0.unwrap();
    engine.close(Closing::Pause).await;
    assert_eq!(engine.job("copy").unwrap().state, JobState::Stopped);
    drop(engine);
    let engine = open(dir.path());
    engine.resume(engine.left()).await;
    assert_eq!(engine.job("copy").unwrap().state, JobState::Running);
    engine.close(Closing::Stop).await;
    drop(engine);
    let engine = open(dir.path());
    engine.resume(engine.left()).await;
    assert_eq!(engine.job("copy").unwrap().state, JobState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_script_that_is_brought_several_times_at_once_one_job_starts() {
    let dir = folder();
    let engine = open(dir.path());
    let text = copy_script(dir.path(), "");
    let (a, b, c) = tokio::join!(
        run(&engine, script(text.clone())),
        run(&engine, script(text.clone())),
        run(&engine, script(text))
    );
    let mut started = 0;
    for (ran, events) in [a, b, c] {
        match ran {
            Ok(_) => started += events.iter().filter(|event| matches!(event, ScriptEvent::Started(_))).count(),
            Err(error) => assert!(error.to_string().contains("job 'copy' is "), "{error}"),
        }
    }
    assert_eq!(started, 1);
    let job = engine.wait_job("copy").await.unwrap();
    assert_eq!((job.state, job.attempts), (JobState::Finished, 1));
    assert_eq!(engine.first_pages("copy", 1).await.unwrap()[0].total, ROWS as u64 - 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_comes_before_the_left_ones_go_on_is_not_one_of_them() {
    let dir = folder();
    let engine = open(dir.path());
    let left = engine.left();
    let (events, _) = mpsc::unbounded_channel();
    let (submitted, ()) = tokio::join!(engine.submit(script(copy_script(dir.path(), "")), events), engine.resume(left));
    submitted.unwrap();
    let job = engine.wait_job("copy").await.unwrap();
    assert_eq!((job.state, job.attempts), (JobState::Finished, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_start_leaves_nothing_behind() {
    let dir = folder();
    let engine = open(dir.path());
    let (ran, _) = run(&engine, script("INSERT INTO nowhere SELECT 1".into())).await;
    let error = ran.unwrap_err();
    assert!(error.to_string().starts_with("copy.sql:1:"), "{error}");
    assert!(engine.jobs().is_empty());
    let unknown = engine.job("nope").unwrap_err();
    assert_eq!(unknown.to_string(), "there is no job 'nope'; there are no jobs yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_select_gives_its_rows_and_leaves_nothing_behind() {
    let dir = folder();
    let engine = open(dir.path());
    let text = copy_script(dir.path(), "");
    let (definitions, _) = text.split_once("CREATE TABLE copied").unwrap();
    let text = format!("{definitions} SELECT n FROM source WHERE n < 5");
    let (query_sink, mut rows) = query_rows();
    let counted = tokio::spawn(async move {
        let mut count = 0;
        while let Some(batch) = rows.recv().await {
            count += batch.num_rows();
        }
        count
    });
    let (ran, _) = run(&engine, Script { query_sink: Some(query_sink), ..script(text) }).await;
    assert!(ran.unwrap().complete);
    assert_eq!(counted.await.unwrap(), 5);
    assert!(engine.jobs().is_empty());
}

fn produce(stream: &str, create_shards: u32, values: &[String]) -> proto::ProduceRequest {
    let record = |value: &String| proto::ProduceRecord { value: value.clone().into(), key: None, timestamp_ms: None };
    proto::ProduceRequest {
        stream: stream.into(),
        key_fields: vec!["k".into()],
        create_shards,
        records: values.iter().map(record).collect(),
    }
}

async fn appended(client: &mut Client, request: proto::ProduceRequest) -> Result<proto::ProduceResponse, Error> {
    let mut answers = client.produce(futures::stream::iter([request])).await?;
    let mut last = Err(Error::Invalid("no answer".into()));
    while let Some(answer) = answers.next().await {
        last = Ok(answer?);
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_produced_and_tailed_through_the_service() {
    let dir = folder();
    let mut client = in_process(open(dir.path()));
    let values: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n},\"k\":\"k{}\"}}", n % 7)).collect();
    let missing = appended(&mut client, produce("numbers", 0, &values)).await.unwrap_err();
    assert!(missing.to_string().contains("there is no stream 'numbers'"), "{missing}");
    let done = appended(&mut client, produce("numbers", 3, &values)).await.unwrap();
    assert_eq!((done.records, done.keyless), (100, 0));
    assert_eq!(done.ends.iter().map(|end| end.end).sum::<u64>(), 100);
    let keyless = appended(&mut client, produce("numbers", 0, &["not json".to_owned()])).await.unwrap();
    assert_eq!(keyless.keyless, 1);

    let request = proto::TailRequest {
        stream: "numbers".into(),
        from: Some(proto::tail_request::From::Earliest(true)),
        follow: true,
        limit: 101,
        uncommitted: false,
    };
    let mut answers = client.tail(request).await.unwrap();
    let mut found = Vec::new();
    while let Some(records) = answers.next().await {
        found.extend(records.unwrap());
    }
    let mut texts: Vec<&[u8]> = found.iter().map(|record| record.value.as_deref().unwrap()).collect();
    texts.sort_unstable();
    let mut expected: Vec<&[u8]> = values.iter().map(String::as_bytes).chain([&b"not json"[..]]).collect();
    expected.sort_unstable();
    assert_eq!(texts, expected);
    let of_one_key = found.iter().filter(|record| record.key.as_deref() == Some(b"k3"));
    let shards: std::collections::BTreeSet<u32> = of_one_key.map(|record| record.shard).collect();
    assert_eq!(shards.len(), 1, "records of one key share a shard");
}

/// The numbers that a reader of a stream has come by, in order, once there are so many.
async fn numbers(engine: &Engine, stream: &str, isolation: Isolation, count: usize) -> Vec<usize> {
    let stream = engine.log().stream(&StreamName::new(stream).unwrap()).unwrap();
    let shard = stream.shard(ShardId(0)).unwrap();
    let (mut tail, mut next, mut found) = (shard.tail(isolation), SequenceNumber(0), Vec::new());
    while found.len() < count {
        tail.changed(next).await.unwrap();
        let fetched = shard.read(next, 1 << 20, isolation).unwrap();
        for batch in fetched.batches() {
            let decoded = batch.unwrap().decode().unwrap();
            let number =
                |value: &[u8]| std::str::from_utf8(value).unwrap()[5..value.len() - 1].parse::<usize>().unwrap();
            found.extend(decoded.records().map(|record| number(record.value.unwrap())));
        }
        next = fetched.next;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_readers_see_results_before_any_checkpoint() {
    const RECORDS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    // A sink in the task of its source, and two that are fed by channels.
    let tables = ["a", "alone", "one", "two"].map(|table| format!("CREATE TABLE {table} (n BIGINT);")).join("\n");
    let inserts = "INSERT INTO alone SELECT n FROM a;
         EXECUTE STATEMENT SET BEGIN INSERT INTO one SELECT n FROM a; INSERT INTO two SELECT n FROM a; END;";
    let text = format!("SET 'execution.checkpointing.interval' = '1 h';\n{tables}\n{inserts}");
    run(&engine, script(text)).await.0.unwrap();
    let mut client = in_process(engine.clone());
    for n in 0..RECORDS {
        // One by one: most find that another has just left, and wait for a moment.
        appended(&mut client, produce("a", 0, &[format!("{{\"n\":{n}}}")])).await.unwrap();
    }
    let outputs = ["alone", "one", "two"];
    for output in outputs {
        let found = numbers(&engine, output, Isolation::ReadUncommitted, RECORDS).await;
        assert_eq!(found, (0..RECORDS).collect::<Vec<_>>(), "{output}");
        let stream = engine.log().stream(&StreamName::new(output).unwrap()).unwrap();
        assert_eq!(
            stream.shard(ShardId(0)).unwrap().last_stable_offset(),
            SequenceNumber(0),
            "{output}: nothing is committed"
        );
    }
    // The jobs' last checkpoint commits.
    engine.close(Closing::Stop).await;
    for output in outputs {
        let found = numbers(&engine, output, Isolation::ReadCommitted, RECORDS).await;
        assert_eq!(found, (0..RECORDS).collect::<Vec<_>>(), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_told_with_its_file_and_byte() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let text = "CREATE TABLE a (n BIGINT); CREATE TABLE b (n BIGINT); INSERT INTO b SELECT n FROM a;";
    run(&engine, script(text.to_owned())).await.0.unwrap();
    appended(&mut in_process(engine.clone()), produce("a", 0, &[r#"{"n":1}"#.to_owned()])).await.unwrap();
    numbers(&engine, "b", Isolation::ReadCommitted, 1).await;
    engine.close(Closing::Stop).await;
    drop(engine);
    // Within the one record of the first batch.
    let segment = dir.path().join("data/log/streams/b/00000/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[65] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    let engine = open(dir.path());
    // The job's outputs are known once it is planned.
    engine.start_job(Start::of("copy")).await.unwrap();
    let expected = format!("{} is damaged at byte 0", segment.display());
    let error = engine.first_pages("copy", 20).await.unwrap_err().to_string();
    assert!(error.contains(&expected), "first pages: {error}");
    let request = proto::TailRequest {
        stream: "b".into(),
        from: Some(proto::tail_request::From::Earliest(true)),
        follow: false,
        limit: 0,
        uncommitted: false,
    };
    // The engine must outlive the answers: it closes the log when nobody has it any more.
    let mut answers = in_process(engine.clone()).tail(request).await.unwrap();
    let error = answers.next().await.expect("an answer").unwrap_err().to_string();
    assert!(error.contains(&expected), "tail: {error}");
}

/// Notes which threads print.
#[derive(Debug, Clone, Default)]
struct Threads(Arc<Mutex<BTreeSet<String>>>);

impl PrintTarget for Threads {
    fn print(&self, _: &str, _: &Batch) -> coulee_runtime::Result<()> {
        self.0.lock().insert(std::thread::current().name().unwrap_or_default().to_owned());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_on_threads_that_serve_no_client() {
    let dir = folder();
    let threads = Threads::default();
    let components = Components { print: Arc::new(threads.clone()), ..Components::default() };
    let engine = Engine::open_with(&dir.path().join("data"), EngineSettings::default(), components).unwrap();
    let text = format!(
        "CREATE TABLE source (n BIGINT)
           WITH ('connector' = 'filesystem', 'path' = '{}/in.ndjson', 'format' = 'json');
         CREATE TABLE printed (n BIGINT) WITH ('connector' = 'print');
         INSERT INTO printed SELECT n FROM source;",
        dir.path().display()
    );
    run(&engine, script(text)).await.0.unwrap();
    assert_eq!(engine.wait_job("copy").await.unwrap().state, JobState::Finished);
    let names = threads.0.lock().clone();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("coulee-job")), "{names:?}");
}

/// A script's tables, without its job.
fn declared(dir: &Path, source_options: &str) -> Script {
    let all = copy_script(dir, source_options);
    Script { origin: "tables.sql".into(), ..script(all[..all.find("INSERT").unwrap()].to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_views_outlive_the_engine() {
    let dir = folder();
    let first = open(dir.path());
    run(&first, declared(dir.path(), "")).await.0.unwrap();
    run(&first, script("CREATE VIEW chosen AS SELECT n, k FROM source WHERE n >= 10".into())).await.0.unwrap();
    drop(first);

    let second = open(dir.path());
    run(&second, script("INSERT INTO copied SELECT * FROM chosen".into())).await.0.unwrap();
    let job = second.wait_job("copy").await.unwrap();
    assert_eq!((job.state, job.progress.unwrap().rows_written), (JobState::Finished, ROWS as u64 - 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_by_the_tables_that_it_was_started_with() {
    let dir = folder();
    let engine = open(dir.path());
    run(&engine, declared(dir.path(), ", 'scan.rate-limit' = '500'")).await.0.unwrap();
    let other = dir.path().join("other");
    run(&engine, script("CREATE VIEW passing AS SELECT 1 AS one".into())).await.0.unwrap();
    let altered = format!("DROP VIEW passing; ALTER TABLE copied SET ('path' = '{}');", other.display());
    run(&engine, script(altered + "INSERT INTO copied SELECT n, k FROM source")).await.0.unwrap();
    until(|| engine.job("copy").unwrap().progress.is_some_and(|progress| progress.rows_read > 0)).await;
    engine.stop_job("copy").await.unwrap();
    let dropped = "DROP TABLE source; DROP TABLE copied; CREATE TABLE source (k INT) WITH ('connector' = 'datagen');";
    run(&engine, Script { origin: "drop.sql".into(), ..script(dropped.into()) }).await.0.unwrap();

    engine.start_job(Start::of("copy")).await.unwrap();
    let job = engine.wait_job("copy").await.unwrap();
    assert_eq!((job.state, job.progress.unwrap().rows_written), (JobState::Finished, ROWS as u64));
    assert!(other.exists() && !dir.path().join("out").exists(), "the change before the job is made again as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_catalog_is_an_error_that_names_it() {
    let dir = folder();
    run(&open(dir.path()), declared(dir.path(), "")).await.0.unwrap();
    std::fs::write(dir.path().join("data/catalog.json"), "{").unwrap();
    let error = Engine::open(&dir.path().join("data"), EngineSettings::default()).unwrap_err().to_string();
    assert!(error.contains("catalog.json"), "{error}");
}
