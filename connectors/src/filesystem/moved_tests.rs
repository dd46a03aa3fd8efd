//! Files that move, grow, change or go while a job reads them, and pipes.

use std::io::Write;
use std::path::Path;

use coulee_model::ErrorKind;

use super::tests::{context, first, n, parquet, read, source, write};
use super::*;

fn numbers(range: std::ops::Range<i64>) -> String {
    range.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn append(path: &Path, text: &str) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// What happens to `a.json` between two starts of a job, and whether it is for the job to go on.
type Fate = (&'static str, fn(&Path));

const FATES: &[Fate] = &[
    ("nothing", |_| {}),
    ("it grows", |folder| append(&folder.join("a.json"), &numbers(20..30))),
    ("it is renamed", |folder| std::fs::rename(folder.join("a.json"), folder.join("a.json.1")).unwrap()),
    ("it is renamed to anything", |folder| std::fs::rename(folder.join("a.json"), folder.join("other.json")).unwrap()),
    ("it is rotated", |folder| {
        std::fs::rename(folder.join("a.json"), folder.join("a.json.1")).unwrap();
        std::fs::write(folder.join("a.json"), numbers(50..80)).unwrap();
    }),
    ("it is rotated and compressed", |folder| {
        append(&folder.join("a.json"), &numbers(20..30));
        write(&folder.join("a.json.1.gz"), &std::fs::read(folder.join("a.json")).unwrap());
        std::fs::remove_file(folder.join("a.json")).unwrap();
        std::fs::write(folder.join("a.json"), numbers(50..80)).unwrap();
    }),
    ("it is compressed", |folder| {
        write(&folder.join("a.json.zst"), &std::fs::read(folder.join("a.json")).unwrap());
        std::fs::remove_file(folder.join("a.json")).unwrap();
    }),
    ("it is copied and cut", |folder| {
        std::fs::copy(folder.join("a.json"), folder.join("a.json.1")).unwrap();
        std::fs::write(folder.join("a.json"), numbers(50..53)).unwrap();
    }),
    ("it is written anew, the same", |folder| {
        let text = std::fs::read(folder.join("a.json")).unwrap();
        std::fs::remove_file(folder.join("a.json")).unwrap();
        std::fs::write(folder.join("a.json"), text).unwrap();
    }),
];

#[tokio::test]
async fn a_job_reads_on_in_a_file_wherever_it_is() {
    for (fate, happens) in FATES {
        for path in ["", "*.json"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            std::fs::write(folder.join("a.json"), numbers(0..20)).unwrap();
            let source = source(&folder.join(path), &[("format", "json")], n());
            let (all, positions) = read(&source, None, 3).await.unwrap();
            assert_eq!(all.numbers, (0..20).collect::<Vec<_>>());
            happens(folder);
            for (rows, position) in positions {
                let rest = read(&source, Some(position), 4).await;
                let (rest, _) = rest.unwrap_or_else(|error| panic!("{fate} after row {rows}: {error}"));
                assert_eq!(rest.numbers, (rows as i64..20).collect::<Vec<_>>(), "{fate}, from row {rows}");
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_changed_is_named() {
    let gone: fn(&Path) = |folder| std::fs::rename(folder.join("a.json"), folder.join(".hidden/a.json")).unwrap();
    let replaced: fn(&Path) = |folder| std::fs::write(folder.join("a.json"), numbers(20..50)).unwrap();
    let edited: fn(&Path) = |folder| {
        let text = numbers(0..20).replacen("1}", "7}", 1);
        std::fs::write(folder.join("a.json"), text).unwrap();
    };
    let shorter: fn(&Path) = |folder| std::fs::write(folder.join("a.json"), numbers(0..4)).unwrap();
    for (happens, kind, message) in [
        (gone, ErrorKind::Invalid, "a.json is gone, and the job needs it: it was read to line 9"),
        (replaced, ErrorKind::Corrupt, "a.json has changed before line 9, to which the job has read it"),
        (edited, ErrorKind::Corrupt, "a.json has changed before line 9"),
        (shorter, ErrorKind::Corrupt, "a.json has changed before line 9"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join(".hidden")).unwrap();
        std::fs::write(folder.join("a.json"), numbers(0..20)).unwrap();
        // The same content, as a split of its own: no stand-in for the one that is gone.
        std::fs::write(folder.join("a.json.copy"), numbers(0..20)).unwrap();
        let source = source(folder, &[("format", "json")], n());
        let (_, positions) = read(&source, None, 3).await.unwrap();
        let copy = source.enumerate(KnownSplits::default()).await.unwrap().splits.remove(1);
        happens(folder);
        let known = |position: Bytes| KnownSplits {
            unfinished: vec![SplitStart { id: first(&source), position: Some(position) }],
            finished: vec![copy.clone()],
        };
        let found = match source.enumerate(known(positions[3].1.clone())).await {
            Ok(found) => source.open(found.splits, context(10)).await.unwrap().next().await.map(drop),
            Err(error) => Err(error),
        };
        let error = found.expect_err(message);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().starts_with("table 't': ") && error.to_string().contains(message), "{error}");
        // With the file back, it goes on.
        std::fs::rename(folder.join(".hidden/a.json"), folder.join("a.json")).ok();
        if kind == ErrorKind::Invalid {
            let (rest, _) = read(&source, Some(positions[3].1.clone()), 10).await.unwrap();
            assert_eq!(rest.numbers, (9..20).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_parquet_file_is_known_by_its_footer() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("a.json");
    let column = |range: std::ops::Range<i64>| Arc::new(arrow::array::Int64Array::from_iter_values(range));
    parquet(&path, column(0..45));
    let source = source(folder, &[("format", "parquet")], n());
    let (_, positions) = read(&source, None, 4).await.unwrap();
    std::fs::rename(&path, folder.join("b.parquet")).unwrap();
    let (rest, _) = read(&source, Some(positions[3].1.clone()), 7).await.unwrap();
    assert_eq!(rest.numbers, (12..45).collect::<Vec<_>>());
    std::fs::remove_file(folder.join("b.parquet")).unwrap();
    parquet(&path, column(1..46));
    let error = read(&source, Some(positions[3].1.clone()), 7).await.unwrap_err().to_string();
    assert!(error.contains("a.json has changed before row 12"), "{error}");
}

#[tokio::test]
async fn a_file_that_grows_is_read_to_a_defined_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    // The end lies within the record of 20, whose writer has not finished it.
    let half = |n: i64| numbers(n..n + 1).split_at(4).0.to_owned();
    std::fs::write(&path, numbers(0..20) + &half(20)).unwrap();
    let source = source(&path, &[("format", "json")], n());
    let mut reader =
        source.open(source.enumerate(KnownSplits::default()).await.unwrap().splits, context(1)).await.unwrap();
    let SourceEvent::Rows { .. } = reader.next().await.unwrap() else { panic!("rows") };
    let position = reader.position(0);
    drop(reader);
    append(&path, &(numbers(20..21)[4..].to_owned() + &numbers(21..25) + &half(25)));
    let (rest, _) = read(&source, Some(position), 5).await.unwrap();
    assert_eq!(
        rest.numbers,
        (1..21).collect::<Vec<_>>(),
        "the record that reaches over the end is whole, none is behind it"
    );
    assert_eq!(rest.rejected, Vec::<String>::new());

    // Without a line end, and nobody writes: a record as any other.
    std::fs::write(&path, numbers(0..3).trim_end()).unwrap();
    assert_eq!(read(&source, None, 5).await.unwrap().0.numbers, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_are_read_as_they_come_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let source = source(&path, &[("format", "json")], n());
    let splits = source.enumerate(KnownSplits::default()).await.unwrap().splits;
    let mut reader = source.open(splits, context(1000)).await.unwrap();
    let writing = path.clone();
    let mut pipe = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(writing).unwrap())
        .await
        .unwrap();
    for round in 0..3 {
        // Rows come although no batch is full and the pipe is open, and a record may come in pieces.
        let text = numbers(round..round + 1);
        pipe.write_all(&text.as_bytes()[..3]).unwrap();
        pipe.write_all(&text.as_bytes()[3..]).unwrap();
        let SourceEvent::Rows { rows, .. } = reader.next().await.unwrap() else { panic!("rows") };
        assert_eq!(rows.column(0).as_ref(), &arrow::array::Int64Array::from(vec![round]) as &dyn arrow::array::Array);
    }
    drop(pipe);
    let position = reader.position(0);
    assert!(matches!(reader.next().await.unwrap(), SourceEvent::Ended { .. }));

    let error = read(&source, Some(position), 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("pipe is a pipe, of which a part was read before the job was interrupted"),
        "{error}"
    );
    // Also when nothing of it was in a checkpoint.
    assert!(read(&source, None, 10).await.unwrap_err().to_string().contains("cannot be read again"));
}
