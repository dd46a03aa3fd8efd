//! Writing: every record exactly once, whenever the process dies, and nothing before its commit.

use std::task::Poll;

use coulee_model::CheckpointId;
use coulee_runtime::conformance::{SinkAttempt, SinkCheckpoint, SinkUnderTest, sink_is_exactly_once};
use coulee_runtime::connector::{Sink, SinkWriter};
use coulee_runtime::rejected_schema;

use super::super::accumulator::UNDER_WAY_BYTES_MAX;
use super::super::dead_letters::StreamDeadLetters;
use super::*;
use crate::dead_letter::DeadLetters;

/// A job that writes ids to the stream "t", and can die.
struct Job {
    place: Place,
    parallelism: u32,
    attempt: Option<SinkAttempt>,
    /// What the last durable checkpoint holds, and the next id.
    durable: (SinkCheckpoint, i64),
    checkpoint: CheckpointId,
    next_id: i64,
}

impl Job {
    async fn start(options: &[(&str, &str)], parallelism: u32) -> Self {
        let place = Place::new();
        place.connector().create(&table(options)).expect("created");
        let durable = (SinkCheckpoint::default(), 0);
        let mut job = Job { place, parallelism, attempt: None, durable, checkpoint: CheckpointId(0), next_id: 0 };
        job.attempt(options).await;
        job
    }

    fn sink(&self, options: &[(&str, &str)]) -> Arc<dyn Sink> {
        self.place.connector().sink(&table(options)).expect("a sink")
    }

    /// A new attempt from the last durable checkpoint, in a new process.
    async fn attempt(&mut self, options: &[(&str, &str)]) {
        let crashed = self.place.crashed();
        self.attempt = None;
        self.place = crashed;
        let (checkpoint, next_id) = self.durable.clone();
        (self.checkpoint, self.next_id) = (checkpoint.id, next_id);
        let (sink, context) = (self.sink(options), self.place.sink_context());
        let attempt = SinkAttempt::begin(sink.as_ref(), &context, &checkpoint, self.parallelism).await;
        self.attempt = Some(attempt.expect("recovered"));
    }

    fn running(&mut self) -> &mut SinkAttempt {
        self.attempt.as_mut().expect("an attempt")
    }

    fn writer(&mut self, subtask: usize) -> &mut dyn SinkWriter {
        self.running().writer(subtask)
    }

    async fn write(&mut self, count: i64) {
        let ids: Vec<i64> = (self.next_id..self.next_id + count).collect();
        self.next_id += count;
        for (i, part) in ids.chunks(ids.len().div_ceil(self.parallelism as usize)).enumerate() {
            self.writer(i).write(rows(part)).await.expect("written");
        }
    }

    async fn prepare(&mut self) -> SinkCheckpoint {
        let prepared = self.running().prepare().await.expect("prepared");
        self.checkpoint = prepared.id;
        prepared
    }

    fn make_durable(&mut self, checkpoint: SinkCheckpoint) {
        self.durable = (checkpoint, self.next_id);
    }

    async fn commit(&mut self) {
        let checkpoint = self.checkpoint;
        self.running().commit(checkpoint).await.expect("committed");
    }

    fn visible(&self) -> Vec<i64> {
        let id = |value: &String| -> i64 {
            let (id, name) = value.strip_prefix("{\"id\":").and_then(|rest| rest.split_once(',')).expect("a record");
            assert_eq!(name, format!("\"name\":\"n{id}\"}}"));
            id.parse().expect("an id")
        };
        let mut ids: Vec<i64> = self.place.values("t").iter().flatten().map(id).collect();
        ids.sort_unstable();
        ids
    }

    fn assert_visible(&self, count: i64, when: &str) {
        assert_eq!(self.visible(), (0..count).collect::<Vec<_>>(), "{when}");
    }

    fn open_transactions(&self) -> usize {
        self.place.log().open_transactions("").len()
    }
}

/// Kills the process after each step of three epochs in turn.
#[tokio::test]
async fn every_record_is_there_once_wherever_the_process_dies() {
    const STEPS: usize = 12;
    for options in [&[("shards", "1")][..], &[("shards", "3"), ("key.fields", "name")], &[("shards", "3")]] {
        for dies_after in 0..=STEPS {
            let mut job = Job::start(options, 2).await;
            let mut step = 0;
            let mut died = false;
            let mut committed = 0;
            while committed < 3 {
                macro_rules! step {
                    ($what:expr) => {
                        $what;
                        step += 1;
                        if step == dies_after && !died {
                            died = true;
                            job.attempt(options).await;
                            // What was durable is visible, and nothing else.
                            job.assert_visible(job.durable.1, "after the recovery");
                            committed = job.durable.0.id.0;
                            continue;
                        }
                    };
                }
                // Long enough for several batches.
                step!(job.write(2_500).await);
                job.assert_visible(job.durable.1, "before the commit");
                let states = job.prepare().await;
                step!(job.assert_visible(job.durable.1, "after the prepare"));
                step!(job.make_durable(states));
                step!(job.commit().await);
                job.assert_visible(job.next_id, "after the commit");
                committed += 1;
            }
            job.assert_visible(7_500, "at the end");
            assert_eq!(job.open_transactions(), 0);
        }
    }
}

#[tokio::test]
async fn several_checkpoints_may_wait_for_their_commit() {
    let mut job = Job::start(&[], 1).await;
    let mut durable = SinkCheckpoint::default();
    for _ in 0..3 {
        job.write(8_000).await;
        durable = job.prepare().await;
    }
    job.assert_visible(0, "nothing is committed");
    // The middle one: the third is not durable.
    job.running().commit(CheckpointId(2)).await.expect("committed");
    job.assert_visible(16_000, "two are committed");
    job.running().commit(CheckpointId(2)).await.expect("nothing to do");
    job.assert_visible(16_000, "a commit said twice");
    // Then the third becomes durable, which has the committables of all three, and the process dies.
    job.make_durable(durable);
    job.attempt(&[]).await;
    job.assert_visible(24_000, "the first two are not repeated");
}

#[tokio::test]
async fn the_number_of_writers_may_change() {
    let options = [("shards", "2"), ("key.fields", "id")];
    let mut job = Job::start(&options, 1).await;
    let mut expected = 0;
    for parallelism in [3, 1, 2, 5, 1] {
        job.parallelism = parallelism;
        job.attempt(&options).await;
        for _ in 0..2 {
            job.write(50).await;
            expected += 50;
            let states = job.prepare().await;
            job.make_durable(states);
            job.commit().await;
        }
        job.write(50).await;
        expected += 50;
        // Dies between checkpoint and commit, and comes back as more or fewer.
        let states = job.prepare().await;
        job.make_durable(states);
    }
    job.attempt(&options).await;
    job.assert_visible(expected, "after five changes");
}

#[tokio::test]
async fn nothing_is_changed_when_nothing_is_written() {
    let mut job = Job::start(&[], 1).await;
    let first = job.prepare().await;
    assert!(first.committables.is_empty(), "{first:?}");
    job.commit().await;
    assert_eq!(job.prepare().await.states, first.states, "a state that does not change need not be stored");
    assert_eq!((job.open_transactions(), end(&job.place, "t", 0).0), (0, 0));
}

#[tokio::test]
async fn what_was_prepared_and_is_not_listed_is_aborted() {
    let mut job = Job::start(&[], 2).await;
    job.write(10).await;
    job.prepare().await;
    assert_eq!(job.open_transactions(), 2);
    // Another sink of the job is none of its business.
    let id = coulee_log::TransactionalId::new("0123456789ab/sink/2/0/0").expect("a name");
    let mut other = job.place.log().transaction(&id).expect("begun");
    other.prepare().await.expect("prepared");
    // The checkpoint never became durable.
    job.attempt(&[]).await;
    assert_eq!(job.open_transactions(), 1);
    job.assert_visible(0, "it was never there");
    assert!(end(&job.place, "t", 0).0 > 10, "uncommitted readers have seen it");
}

#[tokio::test]
async fn writers_of_a_former_attempt_are_fenced() {
    let mut job = Job::start(&[], 1).await;
    // Enough for a batch: a transaction is open.
    for _ in 0..3 {
        job.write(8_000).await;
    }
    // The same process, and the former writer is not gone yet.
    job.sink(&[]).recover(&job.place.sink_context(), &[], &[]).await.expect("recovered");
    let error = job.writer(0).prepare(CheckpointId(1)).await.unwrap_err();
    assert!(error.to_string().contains("it was aborted"), "{error}");
    job.attempt(&[]).await;
    job.assert_visible(0, "it was never there");
}

#[tokio::test]
async fn transactions_of_another_log_are_an_error_and_not_silence() {
    let mut job = Job::start(&[], 1).await;
    job.write(10).await;
    let states = job.prepare().await;
    job.place = Place::new();
    job.place.connector().create(&table(&[])).expect("created");
    let error = job
        .sink(&[])
        .recover(&job.place.sink_context(), &states.states, &states.committables)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not one of this log"), "{error}");
}

/// With 'sink.commit-on' = 'snapshot' many checkpoints are prepared before the first commit.
#[tokio::test]
async fn commits_may_lag_behind() {
    let mut job = Job::start(&[("sink.commit-on", "snapshot")], 1).await;
    for count in 1..=20 {
        job.write(5).await;
        let checkpoint = job.prepare().await;
        assert_eq!(checkpoint.committables.len(), count);
        job.make_durable(checkpoint);
    }
    job.assert_visible(0, "nothing is committed");
    job.commit().await;
    job.assert_visible(100, "all at once");
    job.attempt(&[]).await;
    job.assert_visible(100, "committed again without effect");
}

#[tokio::test]
async fn at_least_once_is_visible_at_once() {
    let options = [("sink.delivery-guarantee", "at-least-once"), ("shards", "2")];
    let mut job = Job::start(&options, 1).await;
    let stream = job.place.log().stream(&StreamName::new("t").expect("a name")).expect("the stream");
    let mut tails: Vec<_> = stream.shards().iter().map(|shard| shard.tail(Isolation::ReadCommitted)).collect();
    job.write(10).await;
    for tail in &mut tails {
        // Without a checkpoint: the test would never end otherwise.
        tail.changed(SequenceNumber(0)).await.expect("records");
    }
    let states = job.prepare().await;
    job.assert_visible(10, "all is stored");
    job.make_durable(states);
    job.commit().await;
    job.write(10).await;
    job.prepare().await;
    // That checkpoint never became durable: its records are written again.
    drop((tails, stream));
    job.attempt(&options).await;
    assert_eq!((job.visible().len(), job.open_transactions()), (20, 0));
    job.write(10).await;
    job.prepare().await;
    let mut visible = job.visible();
    assert_eq!(visible.len(), 30);
    visible.dedup();
    assert_eq!(visible, (0..20).collect::<Vec<_>>(), "repeated, not lost");
}

/// The numbers of the records in each batch of shard 0 that an uncommitted reader finds, without markers.
fn batches(place: &Place) -> Vec<usize> {
    let stream = place.log().stream(&StreamName::new("t").expect("a name")).expect("the stream");
    let shard = stream.shard(ShardId(0)).expect("the shard");
    let fetched = shard.read(SequenceNumber(0), 1 << 20, Isolation::ReadUncommitted).expect("read");
    assert_eq!(fetched.next, fetched.end);
    fetched.batches().map(|batch| batch.expect("a batch").decode().expect("records").records().count()).collect()
}

#[tokio::test]
async fn records_in_quick_succession_share_their_appends() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let options = [("sink.delivery-guarantee", guarantee)];
        // The clock stands still at 5000.
        let mut job = Job::start(&options, 1).await;
        assert_eq!(job.writer(0).next_flush(), None);
        job.write(1).await;
        assert_eq!(job.writer(0).next_flush(), None, "the first leaves at once");
        for _ in 0..9 {
            job.write(1).await;
        }
        assert_eq!(job.writer(0).next_flush(), Some(Timestamp(5003)));
        job.writer(0).flush(Timestamp(5002)).await.expect("nothing to do");
        assert!(job.writer(0).next_flush().is_some());
        job.writer(0).flush(Timestamp(5003)).await.expect("appended");
        assert_eq!(job.writer(0).next_flush(), None);
        // Whenever a round was, a clock that was set back does not hold the next one up.
        job.writer(0).flush(Timestamp(9000)).await.expect("nothing to do");
        job.write(2).await;
        assert_eq!(job.writer(0).next_flush(), Some(Timestamp(5006)));
        job.writer(0).flush(Timestamp(10)).await.expect("appended");
        job.write(3).await;
        job.prepare().await;
        assert_eq!(job.writer(0).next_flush(), None, "the barrier takes all along");
        assert_eq!(batches(&job.place), [1, 9, 2, 3], "{guarantee}");
    }
}

#[tokio::test]
async fn uncommitted_readers_see_records_before_the_checkpoint() {
    let mut job = Job::start(&[("shards", "2")], 1).await;
    let stream = job.place.log().stream(&StreamName::new("t").expect("a name")).expect("the stream");
    job.write(10).await;
    for shard in stream.shards() {
        // Without a checkpoint: the test would never end otherwise.
        shard.tail(Isolation::ReadUncommitted).changed(SequenceNumber(0)).await.expect("records");
        assert_eq!(shard.last_stable_offset(), SequenceNumber(0), "nothing is committed");
    }
    drop(stream);
    // The process dies, and what was seen is aborted and written again.
    job.attempt(&[("shards", "2")]).await;
    assert_eq!(job.open_transactions(), 0);
    job.write(10).await;
    let states = job.prepare().await;
    job.make_durable(states);
    job.commit().await;
    job.assert_visible(10, "once");
}

#[tokio::test]
async fn an_append_that_fails_is_told_by_the_next_call() {
    for at_barrier in [false, true] {
        let mut job = Job::start(&[], 1).await;
        job.write(1).await;
        job.place.log().delete_stream(&StreamName::new("t").expect("a name")).expect("deleted");
        // Appends without waiting, into a stream that is gone.
        let first = job.writer(0).flush(Timestamp(6000)).await.and(job.writer(0).write(rows(&[1])).await);
        let error = match at_barrier {
            true => job.writer(0).prepare(CheckpointId(1)).await.map(|_| ()),
            false => first.and(job.writer(0).flush(Timestamp(7000)).await),
        };
        let error = error.unwrap_err().to_string();
        assert!(error.contains("deleted"), "at the barrier: {at_barrier}: {error}");
    }
}

/// The log stands still: the writer takes so much, and then waits.
#[tokio::test]
async fn a_slow_log_is_waited_for() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let mut job = Job::start(&[("sink.delivery-guarantee", guarantee)], 1).await;
        // Opens the stream, which waits for another reason.
        job.write(1).await;
        let scenario = fail::FailScenario::setup();
        // Other tests of this process wait for a while.
        fail::cfg("log.append.sync", "pause").expect("a failpoint");
        let ids: Vec<i64> = (0..8_192).collect();
        let (mut taken, batch) = (0, rows(&ids));
        loop {
            // Some 33 bytes a record.
            let mut write = job.writer(0).write(batch.clone());
            taken += ids.len() * 33;
            match futures::poll!(write.as_mut()) {
                Poll::Ready(written) => written.expect("taken"),
                Poll::Pending => {
                    assert!(taken > UNDER_WAY_BYTES_MAX / 2, "{guarantee}: it waited after {taken} bytes");
                    fail::remove("log.append.sync");
                    break write.await.expect("written");
                }
            }
            assert!(taken < UNDER_WAY_BYTES_MAX * 3 / 2, "{guarantee}: {taken} bytes are in memory");
        }
        scenario.teardown();
        job.prepare().await;
        assert_eq!(end(&job.place, "t", 0).0, (1 + taken / 33) as u64, "{guarantee}");
    }
}

#[tokio::test]
async fn rows_that_fill_batches_are_appended_before_the_checkpoint() {
    let mut job = Job::start(&[], 1).await;
    // Some 33 bytes a record.
    for _ in 0..5 {
        job.write(8_000).await;
    }
    let stream = job.place.log().stream(&StreamName::new("t").expect("a name")).expect("the stream");
    let shard = stream.shard(ShardId(0)).expect("the shard");
    let mut tail = shard.tail(Isolation::ReadUncommitted);
    tail.changed(SequenceNumber(0)).await.expect("a batch");
    assert_eq!(shard.last_stable_offset(), SequenceNumber(0));
    drop((shard, stream, tail));
    let states = job.prepare().await;
    job.make_durable(states);
    job.commit().await;
    job.assert_visible(40_000, "after the commit");
}

#[tokio::test]
async fn records_have_their_key_and_their_time() {
    let place = Place::new();
    let mut spec = table(&[("key.fields", "name"), ("shards", "4"), ("sink.timestamp-field", "at")]);
    let at = Field::new("at", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true);
    spec.schema = Arc::new(Schema::new(vec![columns().field(0).clone(), columns().field(1).clone(), at]));
    place.connector().create(&spec).expect("created");
    let sink = place.connector().sink(&spec).expect("a sink");
    let mut attempt =
        SinkAttempt::begin(&*sink, &place.sink_context(), &SinkCheckpoint::default(), 1).await.expect("an attempt");
    let times = arrow::array::TimestampMicrosecondArray::from(vec![Some(7_000_000), None]);
    let names = StringArray::from(vec![Some("a"), None]);
    let columns = vec![Arc::new(Int64Array::from(vec![1, 2])) as _, Arc::new(names) as _, Arc::new(times) as _];
    let rows = RecordBatch::try_new(Arc::clone(&spec.schema), columns).expect("rows");
    attempt.writer(0).write(Batch::inserts(rows)).await.expect("written");
    attempt.prepare().await.expect("prepared");
    attempt.commit(CheckpointId(1)).await.expect("committed");

    let stream = place.log().stream(&StreamName::new("t").expect("a name")).expect("the stream");
    let mut found = Vec::new();
    for shard in stream.shards() {
        for batch in shard.read(SequenceNumber(0), 1 << 20, Isolation::ReadCommitted).expect("read").batches() {
            for record in batch.expect("a batch").decode().expect("records").records() {
                let key = record.key.map(<[u8]>::to_vec);
                if let Some(key) = &key {
                    assert_eq!(shard.id(), stream.route(Some(key)));
                }
                found.push((record.timestamp.0, key));
            }
        }
    }
    found.sort();
    assert_eq!(found, [(5000, None), (7000, Some(b"a".to_vec()))]);
}

#[tokio::test]
async fn changes_are_refused() {
    let mut job = Job::start(&[], 1).await;
    let changes = Batch::changes(rows(&[1]).into_rows(), arrow::array::Int8Array::from(vec![3]));
    let error = job.writer(0).write(changes).await.unwrap_err().to_string();
    assert!(error.contains("table 't' takes only rows that are appended"), "{error}");
}

#[tokio::test]
async fn dead_letters_get_a_stream_with_the_first_of_them() {
    let place = Place::new();
    place.connector().create(&table(&[])).expect("created");
    assert!(place.connector().rejected_sink(&table(&[("format.on-error", "skip")])).expect("none").is_none());
    let sink = place.connector().rejected_sink(&table(&[])).expect("a sink").expect("one by default");
    let context = place.sink_context();
    let mut attempt = SinkAttempt::begin(&*sink, &context, &SinkCheckpoint::default(), 1).await.expect("an attempt");
    attempt.writer(0).write(Batch::inserts(RecordBatch::new_empty(rejected_schema()))).await.expect("nothing");
    attempt.prepare().await.expect("prepared");
    attempt.commit(CheckpointId(1)).await.expect("committed");
    assert_eq!(place.log().streams().len(), 1, "no record, no stream");

    let raw: Vec<&[u8]> = vec![b"{\"a\"", b"\xff\x00"];
    let columns = vec![
        Arc::new(StringArray::from(vec!["t/0@1", "t/0@2"])) as _,
        Arc::new(StringArray::from(vec!["no \"end\"", "not UTF-8"])) as _,
        Arc::new(arrow::array::BinaryArray::from(raw)) as _,
        Arc::new(StringArray::from(vec!["decode", "expression"])) as _,
        Arc::new(StringArray::from(vec![None, Some("a / b")])) as _,
    ];
    let rejected = RecordBatch::try_new(rejected_schema(), columns).expect("rows");
    attempt.writer(0).write(Batch::inserts(rejected)).await.expect("written");
    let checkpoint = attempt.prepare().await.expect("prepared");
    drop(attempt);
    assert!(place.values("t_dead_letter")[0].is_empty());
    sink.recover(&context, &checkpoint.states, &checkpoint.committables).await.expect("recovered");
    assert_eq!(
        place.values("t_dead_letter")[0],
        [
            r#"{"stage":"decode","origin":"t/0@1","reason":"no \"end\"","raw":"{\"a\""}"#,
            r#"{"stage":"expression","origin":"t/0@2","expression":"a / b","reason":"not UTF-8","raw_base64":"/wA="}"#
        ]
    );
    let letters = StreamDeadLetters::new(Arc::clone(place.log()));
    assert!(letters.sink(&table(&[]), "a b").unwrap_err().to_string().contains("set 'format.dead-letter.stream'"));
}

/// A stream under the contract of all sinks.
struct Contract {
    place: Place,
    options: Vec<(&'static str, &'static str)>,
}

#[async_trait::async_trait]
impl SinkUnderTest for Contract {
    fn sink(&self) -> Arc<dyn Sink> {
        self.place.connector().sink(&table(&self.options)).expect("a sink")
    }

    fn context(&self) -> SinkContext {
        self.place.sink_context()
    }

    fn input(&self, n: usize) -> Batch {
        rows(&[2 * n as i64, 2 * n as i64 + 1])
    }

    fn expected(&self, n: usize) -> Vec<String> {
        let mut records: Vec<String> = (0..2 * n).map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}")).collect();
        records.sort();
        records
    }

    async fn visible(&mut self) -> Vec<String> {
        let mut records: Vec<String> = self.place.values("t").into_iter().flatten().collect();
        records.sort();
        records
    }

    fn crashed(&mut self) {
        self.place = self.place.crashed();
    }
}

#[tokio::test]
async fn a_stream_keeps_the_contract_of_sinks() {
    for options in [vec![("shards", "1")], vec![("shards", "3"), ("sink.commit-on", "snapshot")]] {
        sink_is_exactly_once(|| {
            let place = Place::new();
            place.connector().create(&table(&options)).expect("created");
            Box::new(Contract { place, options: options.clone() })
        })
        .await;
    }
}
