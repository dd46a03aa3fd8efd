//! What is in a batch comes out of it, and only sound batches come in.

use bytes::Bytes;
use coulee_model::Timestamp;
use proptest::prelude::*;

use super::{Fixture, batch_as, records};
use crate::{BatchBuilder, Compression, EncodedBatch, Isolation, LogError, ProducerId, Record};

const ALL: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Three batches of a Kafka 0.11 broker: one record, two records without values, and with an epoch (from kafka-python's
/// test data, which took them off the wire).
const OF_A_BROKER: [&[u8]; 3] = [
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00;\x00\x00\x00\x01\x02\x03\
      \x18\xa2p\x00\x00\x00\x00\x00\x00\x00\x00\x01]\xff{\x06<\x00\x00\x01]\
      \xff{\x06<\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\
      \x00\x00\x01\x12\x00\x00\x00\x01\x06123\x00",
    b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00@\x00\x00\x00\x02\x02\xc8\
      \\\xbd#\x00\x00\x00\x00\x00\x01\x00\x00\x01]\xff|\xddl\x00\x00\x01]\xff\
      |\xde\x14\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\
      \x00\x00\x02\x0c\x00\x00\x00\x01\x00\x00\x0e\x00\xd0\x02\x02\x01\x00\x00",
    b"\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00;\x00\x00\x00\x02\x02.\x0b\
      \x85\xb7\x00\x00\x00\x00\x00\x00\x00\x00\x01]\xff|\xe7\x9d\x00\x00\x01]\
      \xff|\xe7\x9d\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
      \x00\x00\x00\x01\x12\x00\x00\x00\x01\x06123\x00",
];

fn taken(bytes: &[u8]) -> EncodedBatch {
    EncodedBatch::take(&mut Bytes::copy_from_slice(bytes)).expect("a batch")
}

#[test]
fn batches_of_a_kafka_broker_are_read() {
    let batch = taken(OF_A_BROKER[1]);
    assert_eq!((batch.base_sequence().0, batch.last_sequence().0, batch.count()), (1, 2, 2));
    assert_eq!((batch.first_timestamp(), batch.max_timestamp()), (Timestamp(1503229959532), Timestamp(1503229959700)));
    assert_eq!((batch.producer(), batch.compression()), (None, Some(Compression::None)));
    let decoded = batch.decode().expect("decodes");
    let found: Vec<_> = decoded.records().map(|r| (r.sequence.0, r.timestamp.millis(), r.key, r.value)).collect();
    assert_eq!(found, [(1, 1503229959532, None, Some(&b""[..])), (2, 1503229959700, None, Some(&b""[..]))]);
}

#[test]
fn what_is_built_equals_what_a_kafka_broker_holds() {
    for expected in OF_A_BROKER {
        let decoded = taken(expected).decode().expect("decodes");
        let mut builder = BatchBuilder::new(Compression::None);
        for record in decoded.records() {
            let (key, value, timestamp) = (record.key, record.value, record.timestamp);
            builder.push(&Record { key, value, timestamp, headers: &[] });
        }
        assert_eq!(builder.bytes(), expected.len());
        let (built, _) = builder.finish().expect("a batch");
        // Its place and the leader epoch are not the producer's.
        assert_eq!(built[8..12], expected[8..12]);
        assert_eq!(built[16..], expected[16..], "from the magic number on, with the checksum");
    }
}

#[test]
fn a_bit_flipped_anywhere_is_refused() {
    for compression in ALL {
        let (sound, _) = batch_as(compression, 0..20).finish().expect("a batch");
        // The first 8 bytes and the leader epoch are outside of the checksum: the log sets them.
        for position in (8..12).chain(16..sound.len()) {
            let mut bytes = sound.to_vec();
            bytes[position] ^= 1;
            assert!(BatchBuilder::from_encoded(bytes.into()).is_err(), "{compression:?}, byte {position}");
        }
        assert!(BatchBuilder::from_encoded(sound).is_ok());
    }
}

#[test]
fn batches_that_lie_are_refused() {
    /// Changes a sound batch, mends its length and its checksum, and says why it is refused.
    fn lie(change: impl Fn(&mut Vec<u8>)) -> String {
        let (sound, _) = batch_as(Compression::None, 0..3).finish().expect("a batch");
        let mut bytes = sound.to_vec();
        change(&mut bytes);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        BatchBuilder::from_encoded(bytes.into()).expect_err("a lie").to_string()
    }
    let (last_delta, count) = (26, 60);
    assert!(lie(|batch| batch[last_delta] = 3).contains("last offset does not fit"));
    assert!(lie(|batch| batch[count] = 4).contains("last offset does not fit"));
    assert!(lie(|batch| batch[count] = 0).contains("no records"));
    assert!(lie(|batch| batch[count - 3] = 0xff).contains("negative"));
    assert!(lie(|batch| (batch[last_delta], batch[count]) = (3, 4)).contains("a record is malformed"));
    assert!(lie(|batch| (batch[last_delta], batch[count]) = (1, 2)).contains("bytes after its last record"));
    // Length, attributes, time and offset take a byte each: all records here are of the same size.
    assert_eq!(lie(|batch| batch[61 + 3] = 2), "not a valid record batch: the offsets of its records are not dense");
    // A header is announced where none is.
    assert!(lie(|batch| *batch.last_mut().expect("bytes") = 2).contains("headers of a record are malformed"));
    let two = [OF_A_BROKER[0], OF_A_BROKER[1]].concat();
    assert!(BatchBuilder::from_encoded(two.into()).unwrap_err().to_string().contains("one batch at a time"));
}

#[test]
fn batches_of_clients_are_stored_as_they_came() {
    let fixture = Fixture::new();
    let (_log, shard) = fixture.open();
    shard.append(batch_as(Compression::None, 0..5)).wait().expect("an append");
    for compression in ALL {
        let (sent, _) =
            batch_as(compression, 0..7).producer(ProducerId(compression as i64), 0, 0).finish().expect("a batch");
        let encoded = BatchBuilder::from_encoded(sent.clone()).expect("sound");
        assert_eq!((encoded.len(), encoded.bytes()), (7, sent.len()));
        let appended = shard.append(encoded).wait().expect("an append");
        let fetched = shard.read(appended.first, 1, Isolation::ReadUncommitted).expect("a read");
        assert_eq!(fetched.bytes[8..], sent[8..], "{compression:?}");
        assert_eq!(records(&fetched), (0..7).map(|i| (appended.first.0 + i, i)).collect::<Vec<_>>());
    }
}

#[test]
fn an_empty_batch_is_refused() {
    let fixture = Fixture::new();
    let (_log, shard) = fixture.open();
    let error = shard.append(BatchBuilder::new(Compression::Zstd)).wait().unwrap_err();
    assert!(matches!(error, LogError::InvalidBatch { .. }), "{error}");
}

type Owned = (Option<Vec<u8>>, Option<Vec<u8>>, i64, Vec<(String, Option<Vec<u8>>)>);

fn any_record() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let name = proptest::collection::vec(any::<char>(), 0..5).prop_map(String::from_iter);
    (bytes(), bytes(), any::<i64>(), proptest::collection::vec((name, bytes()), 0..3))
}

proptest! {
    #[test]
    fn any_records_come_back(sent in proptest::collection::vec(any_record(), 1..50), codec in 0..5usize) {
        let mut builder = BatchBuilder::new(ALL[codec]);
        for (key, value, timestamp, headers) in &sent {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let timestamp = Timestamp(*timestamp);
            builder.push(&Record { key: key.as_deref(), value: value.as_deref(), timestamp, headers: &headers });
        }
        let (bytes, _) = builder.finish().expect("a batch");
        let batch = taken(&bytes);
        let decoded = batch.decode().expect("decodes");
        let found: Vec<Owned> = decoded.records().map(|record| (
            record.key.map(<[u8]>::to_vec),
            record.value.map(<[u8]>::to_vec),
            record.timestamp.millis(),
            record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
        )).collect();
        prop_assert_eq!(&found, &sent);
        prop_assert_eq!(Some(batch.max_timestamp().millis()), sent.iter().map(|record| record.2).max());
        prop_assert!(BatchBuilder::from_encoded(bytes).is_ok());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), codec in 0..8u8) {
        // Past the checks that keep nonsense out, so that the ones behind them are reached.
        if bytes.len() >= 61 {
            let length = bytes.len() as i32 - 12;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            bytes[21..23].copy_from_slice(&[0, codec]);
            bytes[57..61].copy_from_slice(&[0, 0, 0, 2]);
            bytes[23..27].copy_from_slice(&[0, 0, 0, 1]);
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let _ = BatchBuilder::from_encoded(bytes.into());
    }
}
