//! `CREATE TABLE`: what it makes, and what it refuses.

use coulee_log::SyncPolicy;

use super::*;

#[test]
fn a_stream_is_made_as_the_table_says() {
    let place = Place::new();
    let options = [
        ("stream", "other"),
        ("shards", "3"),
        ("key.fields", "name; id"),
        ("log.sync", "interval"),
        ("log.sync.interval", "20 ms"),
        ("log.compression", "zstd"),
        ("retention.time", "2 h"),
        ("retention.bytes", "1 mb"),
    ];
    place.connector().create(&table(&options)).expect("created");
    place.connector().create(&table(&options)).expect("it exists, and fits");
    place.connector().create(&table(&[("stream", "other")])).expect("no count asked for");
    let stream = place.log().stream(&StreamName::new("other").expect("a name")).expect("the stream");
    let settings = stream.settings();
    assert_eq!((settings.shards, settings.sync), (3, SyncPolicy::Interval { ms: 20 }));
    assert_eq!((settings.retention_ms, settings.retention_bytes), (Some(7_200_000), Some(1 << 20)));
    assert_eq!(settings.compression, Compression::Zstd);
    let properties: Vec<(&str, &str)> = settings.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(properties, [("created-by", "test"), ("format", "json"), ("key.fields", "name;id")]);
}

#[test]
fn errors_name_the_table_and_the_option() {
    let place = Place::new();
    place.connector().create(&table(&[("shards", "2")])).expect("created");
    for (options, message) in [
        (
            &[("shards", "4")][..],
            "table 't': 'shards' is 4, but stream 't' exists with 2: leave the option out, or name another stream",
        ),
        (&[("shards", "0")], "table 't': option 'shards' is '0', expected 1 to 4096"),
        (
            &[("key.fields", "nam")],
            "table 't': option 'key.fields' names 'nam', which is no column; there are id, name",
        ),
        (&[("stream", "a/b")], "table 't': 'a/b' is not a valid stream name"),
        (&[("scan.startup.mode", "timestamp")], "option 'scan.startup.timestamp-millis' is missing"),
        (
            &[("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", "0:3")],
            "expected pairs such as 'partition:0,offset:42;partition:1,offset:300'",
        ),
        (
            &[("sink.commit-on", "snapshot"), ("sink.delivery-guarantee", "at-least-once")],
            "'at-least-once' does without: leave one of them out",
        ),
        (&[("shard", "1")], "unknown option 'shard'; did you mean 'shards'?"),
    ] {
        let error = place.connector().create(&table(options)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let error = place.connector().source(&table(&[("shards", "5")]), &[0]).unwrap_err().to_string();
    assert!(error.contains("'shards' is 5"), "{error}");
    let error = place.connector().sink(&table(&[("stream", "none")])).unwrap_err().to_string();
    assert!(error.contains("table 't': there is no stream 'none'"), "{error}");
    let error = place.connector().sink(&table(&[("sink.timestamp-field", "name")])).unwrap_err().to_string();
    assert!(error.contains("column 'name' is Utf8, expected TIMESTAMP(3)"), "{error}");

    let mut spec = table(&[]);
    spec.metadata_columns = [("id".to_owned(), "ofset".to_owned())].into();
    let error = place.connector().create(&spec).unwrap_err().to_string();
    assert!(error.contains("column 'id' asks for metadata 'ofset'; did you mean 'offset'?"), "{error}");
    spec.metadata_columns = [("name".to_owned(), "offset".to_owned())].into();
    let error = place.connector().create(&spec).unwrap_err().to_string();
    assert!(error.contains("metadata column 'name' is Utf8, expected BIGINT"), "{error}");
}
