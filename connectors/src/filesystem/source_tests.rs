//! Reading files from every position, in every compression, with good and bad records.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use coulee_model::{ErrorKind, ManualClock, OperatorId, SubtaskIndex, Timestamp};
use futures::FutureExt;

use super::*;
use crate::filesystem::settings::option_specs;

pub(super) fn context(batch_rows: usize) -> SourceContext {
    SourceContext {
        batch_rows,
        clock: Arc::new(ManualClock::new(Timestamp(0))),
        metrics: Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0))),
    }
}

pub(super) fn source(path: &Path, options: &[(&str, &str)], columns: Vec<Field>) -> FilesystemSource {
    let mut options: BTreeMap<String, String> =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    options.insert("path".to_owned(), path.to_str().unwrap().to_owned());
    let table = TableSpec {
        name: "t".to_owned(),
        schema: Arc::new(Schema::new(columns)),
        metadata_columns: BTreeMap::new(),
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options,
        created_by: "job".to_owned(),
    };
    let checked = table.options(option_specs()).unwrap();
    let projection: Vec<usize> = (0..table.schema.fields().len()).collect();
    FilesystemSource::new(Location::Local(path.to_owned()), &table, &checked, &projection).unwrap()
}

pub(super) fn n() -> Vec<Field> {
    vec![Field::new("n", DataType::Int64, true)]
}

/// The numbers read from one split, where they were read to, and the origins and reasons of what was rejected.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Got {
    pub(super) numbers: Vec<i64>,
    pub(super) rejected: Vec<String>,
}

pub(super) async fn read(
    source: &FilesystemSource,
    position: Option<Bytes>,
    batch_rows: usize,
) -> Result<(Got, Vec<(usize, Bytes)>)> {
    let known = match position {
        None => KnownSplits::default(),
        Some(_) => {
            KnownSplits { unfinished: vec![SplitStart { id: first(source), position }], ..KnownSplits::default() }
        }
    };
    let mut splits = source.enumerate(known).await?.splits;
    splits.truncate(1);
    let mut reader = source.open(splits, context(batch_rows)).await?;
    let mut got = Got::default();
    let mut positions = vec![(0, reader.position(0))];
    loop {
        match reader.next().await? {
            SourceEvent::Rows { rows, rejected, .. } => {
                got.numbers.extend(rows.column(0).as_primitive::<Int64Type>().values());
                if let Some(rejected) = rejected {
                    let (origins, reasons) =
                        (rejected.column(0).as_string::<i32>(), rejected.column(1).as_string::<i32>());
                    got.rejected.extend(origins.iter().zip(reasons).map(|(origin, reason)| {
                        format!("{}: {}", origin.unwrap().rsplit('/').next().unwrap(), reason.unwrap())
                    }));
                }
                positions.push((got.numbers.len(), reader.position(0)));
            }
            SourceEvent::Ended { .. } => return Ok((got, positions)),
            SourceEvent::CaughtUp { .. } | SourceEvent::Moved { .. } => {}
            SourceEvent::Changes { .. } => panic!("files are not a changelog"),
        }
    }
}

/// The split of the first file, as it is called when the job begins. Tests that move files call theirs `a.…`.
pub(super) fn first(source: &FilesystemSource) -> SplitId {
    match &source.plan.place.location {
        Location::Local(path) if path.is_dir() => SplitId(path.join("a.json").to_str().unwrap().to_owned()),
        Location::Local(path) if path.ends_with("*.json") => {
            SplitId(path.with_file_name("a.json").to_str().unwrap().to_owned())
        }
        Location::Local(path) => SplitId(path.to_str().unwrap().to_owned()),
        Location::Object { .. } => panic!("these tests read local files"),
    }
}

/// Writes a file, compressed by its extension: gzip in two members, zstd in two frames.
pub(super) fn write(path: &Path, text: &[u8]) {
    let (first, second) = text.split_at(text.len() / 2);
    let bytes = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => [first, second]
            .into_iter()
            .flat_map(|part| {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap()
            })
            .collect(),
        Some("zst") => [first, second].into_iter().flat_map(|part| zstd::encode_all(part, 1).unwrap()).collect(),
        _ => text.to_vec(),
    };
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn reading_on_from_any_position_gives_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |format: &str, end: &str| -> Vec<u8> {
        let mut text = if format == "csv" { format!("other,n{end}") } else { String::new() };
        for n in 0..50 {
            match format {
                _ if n % 11 == 3 => text.push_str(&format!("bad{end}{end}")),
                "csv" => text.push_str(&format!("\"a\"\"b\nc\",{n}{end}")),
                _ => text.push_str(&format!("{{\"n\":{n}}}{end}")),
            }
        }
        text.truncate(text.len() - end.len());
        text.into_bytes()
    };
    for format in ["json", "csv"] {
        for (name, end) in [("a.txt", "\n"), ("b.gz", "\n"), ("c.zst", "\n"), ("d.txt", "\r\n")] {
            let path = folder.path().join(name);
            write(&path, &lines(format, end));
            let columns = match format {
                "csv" => vec![Field::new("n", DataType::Int64, true)],
                _ => n(),
            };
            let source = source(&path, &[("format", format)], columns);
            let (all, positions) = read(&source, None, 4).await.unwrap();
            let expected: Vec<i64> = (0..50).filter(|n| n % 11 != 3).collect();
            assert_eq!(all.numbers, expected, "{format} {name}");
            assert_eq!(all.rejected.len(), 5, "{all:?}");
            assert!(positions.len() > 10);
            for (rows, position) in positions {
                let (rest, _) = read(&source, Some(position), 3).await.unwrap();
                assert_eq!(rest.numbers, expected[rows..], "{format} {name} from row {rows}");
                assert!(all.rejected.ends_with(&rest.rejected), "line numbers go on counting: {rest:?}");
            }
        }
    }
    let source = source(&folder.path().join("a.txt"), &[("format", "csv")], n());
    let first = &read(&source, None, 100).await.unwrap().0.rejected[0];
    assert_eq!(first, "a.txt:8: expected 2 fields, found 1");
}

pub(super) fn parquet(path: &Path, column: ArrayRef) {
    let rows = RecordBatch::try_from_iter([("x", column.clone()), ("n", column)]).unwrap();
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn parquet_is_read_from_any_row_group_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.parquet");
    parquet(&path, Arc::new(Int64Array::from_iter_values(0..45)));
    let source = source(&path, &[("format", "parquet")], n());
    let (all, positions) = read(&source, None, 4).await.unwrap();
    assert_eq!(all.numbers, (0..45).collect::<Vec<_>>());
    for (rows, position) in positions {
        let (rest, _) = read(&source, Some(position), 7).await.unwrap();
        assert_eq!(rest.numbers, (rows as i64..45).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn parquet_types_are_adapted_and_what_does_not_fit_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.parquet");
    parquet(&path, Arc::new(Int64Array::from(vec![Some(1), None, Some(300)])));
    let open = |data_type: DataType, name: &str| {
        source(&path, &[("format", "parquet")], vec![Field::new(name, data_type, true)])
    };
    let first = async |source: FilesystemSource| {
        let splits = source.enumerate(KnownSplits::default()).await.unwrap().splits;
        source.open(splits, context(10)).await.unwrap().next().await
    };
    for fits in [DataType::Int16, DataType::Float64, DataType::Decimal128(10, 2)] {
        let SourceEvent::Rows { rows, .. } = first(open(fits.clone(), "n")).await.unwrap() else { panic!("rows") };
        assert_eq!((rows.column(0).data_type(), rows.column(0).null_count()), (&fits, 1));
    }
    let event = first(open(DataType::Int8, "n")).await.unwrap();
    let SourceEvent::Rows { rows, rejected: Some(rejected), .. } = event else { panic!("no rejects") };
    assert_eq!(rows.num_rows(), 2);
    let text = |column: usize| rejected.column(column).as_string::<i32>().value(0).to_owned();
    assert_eq!(text(0), format!("{}:row 3", path.display()));
    assert_eq!(text(1), "column 'n': expected TINYINT, found BIGINT 300");
    assert_eq!(rejected.column(2).as_binary::<i32>().value(0), br#"{"n":300}"#);

    // Two columns, one of which older files do not have.
    let columns = vec![Field::new("later", DataType::Utf8, true), Field::new("N", DataType::Int64, true)];
    let SourceEvent::Rows { rows, .. } = first(source(&path, &[("format", "parquet")], columns)).await.unwrap() else {
        panic!("no rows")
    };
    assert_eq!((rows.column(0).null_count(), rows.column(1).null_count()), (3, 1));
    let file = path.display();
    for (data_type, name, message) in [
        (DataType::Utf8, "n", format!("{file}: column 'n' is BIGINT in the file and STRING in the table")),
        (DataType::Int64, "m", format!("{file} has none of the table's columns m; it has: x, n")),
    ] {
        assert_eq!(first(open(data_type, name)).await.unwrap_err().to_string(), format!("table 't': {message}"));
    }
}

/// Expected by Python's `csv` module but for the second record, whose quote nothing closes: it is rejected, and no other.
#[tokio::test]
async fn a_stray_quote_takes_no_other_row_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let text = "n,name\n1,Box 24\"\n2,\"Rope\n3,\"two\nlines\"\n4,6\" nails\n5,\"open";
    std::fs::write(&path, text).unwrap();
    let columns = || vec![Field::new("n", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
    let source = source(&path, &[("format", "csv")], columns());
    let (all, positions) = read(&source, None, 1).await.unwrap();
    assert_eq!(all.numbers, [1, 3, 4]);
    let lines: Vec<&str> = all.rejected.iter().map(|reject| reject.split(": a field begins").next().unwrap()).collect();
    assert_eq!(lines, ["a.csv:3", "a.csv:7"]);
    for (rows, position) in positions {
        let (rest, _) = read(&source, Some(position), 2).await.unwrap();
        assert_eq!(rest.numbers, all.numbers[rows..]);
    }
}

#[tokio::test]
async fn a_file_that_is_one_array_has_its_elements_as_rows() {
    let folder = tempfile::tempdir().unwrap();
    for (name, pretty) in [("a.json", true), ("b.json.gz", true), ("c.json", false)] {
        let path = folder.path().join(name);
        let line_end = if pretty { "\n  " } else { "" };
        let elements: Vec<String> =
            (0..50).map(|n| format!("{{{line_end}\"n\":{n},{line_end}\"t\":\"]}}\"}}")).collect();
        write(&path, format!("\u{feff}[{line_end}{}{line_end}]\n{{\"n\":50}}", elements.join(",")).as_bytes());
        let source = source(&path, &[("format", "json")], n());
        let (all, positions) = read(&source, None, 4).await.unwrap();
        assert_eq!(all.numbers, (0..51).collect::<Vec<_>>(), "{name}");
        assert_eq!(all.rejected, [""; 0]);
        for (rows, position) in positions {
            let (rest, _) = read(&source, Some(position), 3).await.unwrap();
            assert_eq!(rest.numbers, all.numbers[rows..], "{name} from row {rows}");
        }
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let text: String = (0..200).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    std::fs::write(&path, text).unwrap();
    let source = source(&path, &[("format", "json")], n());
    let splits = source.enumerate(KnownSplits::default()).await.unwrap().splits;
    let mut reader = source.open(splits, context(3)).await.unwrap();
    let mut numbers = Vec::new();
    loop {
        // Each pending call is dropped at once.
        let Some(event) = reader.next().now_or_never() else {
            tokio::task::yield_now().await;
            continue;
        };
        match event.unwrap() {
            SourceEvent::Rows { rows, .. } => {
                numbers.extend(rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            }
            _ => break,
        }
    }
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn malformed_records_are_treated_as_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    std::fs::write(&path, "{\"n\":1}\n{\"n\":\"x\"}\n{\"n\":3").unwrap();
    let with = |on_error: &str| source(&path, &[("format", "json"), ("format.on-error", on_error)], n());
    let (kept, _) = read(&with("dead-letter"), None, 10).await.unwrap();
    assert_eq!(kept.numbers, [1]);
    assert_eq!(
        kept.rejected,
        [
            "a.json:2: field 'n': expected BIGINT, found text \"x\"",
            "a.json:3: not a JSON object: expected ',' or '}' at byte 6, found the end"
        ]
    );
    let error = read(&with("fail"), None, 10).await.unwrap_err().to_string();
    assert_eq!(error, format!("table 't': {}:2: field 'n': expected BIGINT, found text \"x\"", path.display()));

    let skipping = with("skip");
    let splits = skipping.enumerate(KnownSplits::default()).await.unwrap();
    let context = context(10);
    let metrics = context.metrics.clone();
    let mut reader = skipping.open(splits.splits, context).await.unwrap();
    let SourceEvent::Rows { rows, rejected, .. } = reader.next().await.unwrap() else { panic!("rows") };
    assert_eq!((rows.num_rows(), rejected), (1, None));
    assert_eq!(metrics.figures().rejected_rows(), 2);
}

#[tokio::test]
async fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json.gz");
    write(&path, "{\"n\":1}\n".repeat(1000).as_bytes());
    let bytes = std::fs::read(&path).unwrap();
    for (damaged, message) in [
        (
            bytes[..bytes.len() - 9].to_vec(),
            "a.json.gz is cut off: its compressed data ends in the middle, behind line",
        ),
        (b"{\"n\":1}\n".to_vec(), "a.json.gz cannot be decompressed behind line"),
    ] {
        std::fs::write(&path, damaged).unwrap();
        let error = read(&source(&path, &[("format", "json")], n()), None, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    let path = folder.path().join("b.parquet");
    std::fs::write(&path, "no").unwrap();
    let error = read(&source(&path, &[("format", "parquet")], n()), None, 10).await.unwrap_err();
    assert!(error.to_string().contains("b.parquet is not a readable Parquet file"), "{error}");
}

#[tokio::test]
async fn empty_files_have_no_rows_however_they_are_compressed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.json", "a.json.gz", "a.json.zst"] {
        std::fs::write(folder.path().join(name), "").unwrap();
        let (got, _) = read(&source(&folder.path().join(name), &[("format", "json")], n()), None, 10).await.unwrap();
        assert_eq!(got, Got::default(), "{name}");
    }
}

#[tokio::test]
async fn a_record_that_is_too_long_is_rejected_and_the_next_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{{\"n\":2,\"x\":\"{}\"}}", "x".repeat(5000));
    for name in ["a.json", "a.json.gz"] {
        let path = folder.path().join(name);
        write(&path, format!("{{\"n\":1}}\n{long}\n{{\"n\":3}}\n{long}").as_bytes());
        let source = source(&path, &[("format", "json"), ("source.record-size.max", "1 kb")], n());
        let (all, positions) = read(&source, None, 1).await.unwrap();
        assert_eq!(all.numbers, [1, 3]);
        let reason = |line| {
            let bytes = long.len() + usize::from(line == 2);
            format!(
                "{name}:{line}: the record has {bytes} bytes, more than the 1024 that 'source.record-size.max' allows"
            )
        };
        assert_eq!(all.rejected, [reason(2), reason(4)]);
        for (rows, position) in positions {
            assert_eq!(read(&source, Some(position), 10).await.unwrap().0.numbers, all.numbers[rows..]);
        }
    }
}

#[tokio::test]
async fn an_empty_path_is_refused() {
    let values = BTreeMap::from([("path".to_owned(), " ".to_owned()), ("format".to_owned(), "json".to_owned())]);
    let options = Options::new("table 't'", option_specs(), &values).unwrap();
    let error = Location::new(&options, Path::new("/in")).unwrap_err().to_string();
    assert!(error.starts_with("table 't': option 'path' is empty, expected"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn files_keep_the_contract_of_sources() {
    let folder = tempfile::tempdir().unwrap();
    for (name, numbers) in [("a.json", 0..9), ("b.json.gz", 10..17), ("c/d.json.zst", 20..21), ("e.json", 30..30)] {
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        let text: String = numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect();
        write(&folder.path().join(name), text.as_bytes());
    }
    let source = source(folder.path(), &[("format", "json")], n());
    coulee_runtime::conformance::source_is_repeatable(&source, context(1).clock).await;
}
