//! `coulee produce`: appends the lines of the standard input to a stream.

use std::io::Read;
use std::time::Duration;

use coulee_model::Stopwatch;
use coulee_server::proto;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::args::Produce;
use crate::failure::Failure;
use crate::figures::{bytes, count, counted, short, span};
use crate::screen::{self, note};
use crate::settings::Settings;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead of the server.
const CHUNKS_AHEAD: usize = 8;
/// The longest line: what the log takes as one record, less its frame.
const LINE_BYTES_MAX: usize = 60 << 20;
/// How often progress is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Runs the command.
pub async fn produce(args: Produce, settings: Settings) -> Result<(), Failure> {
    let mut connected = match args.shards {
        Some(_) => args.target.connect_or_create(&settings).await?,
        None => args.target.connect(&settings).await?,
    };
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let split = |fields: String| fields.split(',').map(|field| field.trim().to_owned()).collect();
    let first = proto::ProduceRequest {
        stream: args.stream.clone(),
        key_fields: args.key.map(split).unwrap_or_default(),
        create_shards: args.shards.unwrap_or(0),
        records: Vec::new(),
    };
    let reader = std::thread::spawn(move || read_lines(std::io::stdin().lock(), first, &chunks));
    let requests = stream::unfold(received, |mut received| async { Some((received.recv().await?, received)) });
    let started = Stopwatch::start();
    let mut answers = connected.client.produce(requests).await?;
    let (mut last, mut drawn) = (proto::ProduceResponse::default(), Stopwatch::start());
    let is_live = screen::is_live();
    while let Some(answer) = answers.next().await {
        last = answer?;
        if is_live && drawn.elapsed() >= REDRAW {
            drawn = Stopwatch::start();
            let rate = last.records as f64 / started.elapsed().as_secs_f64();
            screen::draw(&[format!("{} durable  {}/s", counted(last.records, "record"), short(rate))])?;
        }
    }
    // The input has ended or the stream has: in both cases the thread is done, or waits for input that nobody needs.
    let read = match reader.is_finished() || last.records == 0 {
        true => reader.join().unwrap_or_else(|_| Err(Failure::Failed("reading the input failed".to_owned())))?,
        false => 0,
    };
    tell(&args.stream, &last, read, started)
}

fn tell(stream: &str, last: &proto::ProduceResponse, read: u64, started: Stopwatch) -> Result<(), Failure> {
    let elapsed = started.elapsed();
    let rate = last.records as f64 / elapsed.as_secs_f64().max(1e-6);
    note(&format!(
        "{} ({}) appended to '{stream}' in {} ({}/s)",
        counted(last.records, "record"),
        bytes(read),
        span(elapsed),
        short(rate)
    ))?;
    let ends: Vec<String> = last.ends.iter().map(|end| format!("{}: {}", end.shard, count(end.end))).collect();
    if !ends.is_empty() {
        note(&format!("  shards end at {}", ends.join(", ")))?;
    }
    if last.keyless > 0 {
        note(&format!(
            "  {} had no key: no JSON object, or without the fields; they went to shards in turn",
            counted(last.keyless, "record")
        ))?;
    }
    Ok(())
}

/// Sends the lines in chunks, as they come; says how many bytes they had.
fn read_lines(
    mut input: impl Read,
    first: proto::ProduceRequest,
    chunks: &mpsc::Sender<proto::ProduceRequest>,
) -> Result<u64, Failure> {
    // The first message goes out even without a line: it names the stream, which may not exist.
    let mut request = first;
    let mut lines = Lines::default();
    let mut opened = false;
    loop {
        let ended = lines.fill(&mut input)?;
        lines.take(ended, &mut request.records);
        if !request.records.is_empty() || (ended && !opened) {
            opened = true;
            if chunks.blocking_send(std::mem::take(&mut request)).is_err() {
                // The call has ended, and says why.
                return Ok(lines.total);
            }
        }
        if ended {
            return Ok(lines.total);
        }
    }
}

/// Cuts what was read into lines. What one read brings is not held back to wait for the next.
#[derive(Default)]
struct Lines {
    /// What was read; in front, the beginning of a line whose end is to come.
    bytes: Vec<u8>,
    total: u64,
}

impl Lines {
    /// Reads once; says whether that was the end.
    fn fill(&mut self, input: &mut impl Read) -> Result<bool, Failure> {
        let held = self.bytes.len();
        if held > LINE_BYTES_MAX {
            return Err(Failure::Input("a line has more than 60 MiB: one line is one record".to_owned()));
        }
        self.bytes.resize(held + CHUNK_BYTES, 0);
        let read = loop {
            match input.read(&mut self.bytes[held..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| Failure::io("cannot read the standard input", &error))?,
            }
        };
        self.bytes.truncate(held + read);
        Ok(read == 0)
    }

    /// Moves complete lines into `records`, and at the end the last one though it has no line break. Empty lines are none.
    fn take(&mut self, ended: bool, records: &mut Vec<proto::ProduceRecord>) {
        let complete = match ended {
            true => self.bytes.len(),
            false => self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        for line in self.bytes[..complete].split(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\r").unwrap_or(line);
            if !text.is_empty() {
                self.total += text.len() as u64;
                records.push(proto::ProduceRecord { value: text.to_vec().into(), key: None, timestamp_ms: None });
            }
        }
        self.bytes.drain(..complete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_a_read_ends() {
        let mut lines = Lines::default();
        let mut records = Vec::new();
        for part in ["{\"a\":1}\n{\"a\"", ":2}\r\n\n", "{\"a\":3}"] {
            lines.fill(&mut part.as_bytes()).unwrap();
            lines.take(false, &mut records);
        }
        assert_eq!(records.len(), 2);
        assert!(lines.fill(&mut &b""[..]).unwrap());
        lines.take(true, &mut records);
        let values: Vec<&[u8]> = records.iter().map(|record| &record.value[..]).collect();
        assert_eq!(values, [b"{\"a\":1}", b"{\"a\":2}", b"{\"a\":3}"]);
        assert_eq!(lines.total, 21);
    }
}
