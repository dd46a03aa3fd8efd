//! Compression of a batch's records, in the framings that Kafka clients use.
//!
//! SUBTLE: Java frames snappy as the xerial library does, others send a raw block; both are read, the first is written.
//! LZ4 is the frame format with independent blocks, which is all that the Java client reads.

use std::io::{self, Read, Write};

use crate::settings::Compression;

/// The most bytes that the records of one batch may have after decompression: what a batch that lies can cost.
const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, then the version and the oldest compatible version, each 1 as a big-endian `i32`.
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

const ZSTD_LEVEL: i32 = 3;

/// Appends the compressed `records` to `out`.
///
/// # Errors
/// What the codec says; writing to memory does not fail otherwise.
pub(crate) fn compress(compression: Compression, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    match compression {
        Compression::None => out.extend_from_slice(records),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(records)?;
            encoder.finish()?;
        }
        Compression::Snappy => compress_xerial(records, out)?,
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            encoder.write_all(records)?;
            encoder.finish().map_err(io::Error::other)?;
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
            encoder.write_all(records)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

/// The records of a compressed batch.
///
/// # Errors
/// When the bytes are not what the codec writes, or decompress to more than 256 MiB.
pub(crate) fn decompress(compression: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => read_limited(flate2::read::MultiGzDecoder::new(bytes), bytes.len()),
        Compression::Snappy => decompress_snappy(bytes),
        Compression::Lz4 => read_limited(lz4_flex::frame::FrameDecoder::new(bytes), bytes.len()),
        Compression::Zstd => read_limited(zstd::stream::read::Decoder::with_buffer(bytes)?, bytes.len()),
    }
}

fn read_limited(decoder: impl Read, compressed_bytes: usize) -> io::Result<Vec<u8>> {
    let mut records = Vec::with_capacity(compressed_bytes.saturating_mul(3).min(BUFFER_GUESS_MAX));
    decoder.take(DECOMPRESSED_BYTES_MAX + 1).read_to_end(&mut records)?;
    if records.len() as u64 > DECOMPRESSED_BYTES_MAX {
        return Err(too_large());
    }
    Ok(records)
}

/// The most memory that is set aside on the mere word of a compressed length.
const BUFFER_GUESS_MAX: usize = 4 << 20;

fn compress_xerial(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES)];
    for chunk in records.chunks(XERIAL_BLOCK_BYTES) {
        let length = encoder.compress(chunk, &mut block).map_err(io::Error::other)?;
        out.extend_from_slice(&(length as i32).to_be_bytes());
        out.extend_from_slice(&block[..length]);
    }
    Ok(())
}

fn decompress_snappy(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    if !bytes.starts_with(&XERIAL_MAGIC) {
        append_snappy_block(bytes, &mut records)?;
        return Ok(records);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or(io::ErrorKind::UnexpectedEof)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = after.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        append_snappy_block(block, &mut records)?;
        rest = after;
    }
    Ok(records)
}

fn append_snappy_block(block: &[u8], records: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if (records.len() + length) as u64 > DECOMPRESSED_BYTES_MAX {
        return Err(too_large());
    }
    let start = records.len();
    records.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut records[start..]).map_err(io::Error::other)?;
    records.truncate(start + written);
    Ok(())
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the records decompress to more than 256 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    #[test]
    fn every_codec_returns_what_it_was_given() {
        for compression in ALL {
            // More than one xerial block, and none.
            for length in [0, 1, 1000, 100_000] {
                let records: Vec<u8> = (0..length).map(|i: u32| (i / 7) as u8).collect();
                let mut out = vec![1, 2, 3];
                compress(compression, &records, &mut out).expect("compress");
                assert_eq!(out[..3], [1, 2, 3], "appends");
                assert_eq!(
                    decompress(compression, &out[3..]).expect("decompress"),
                    records,
                    "{compression:?} {length}"
                );
            }
        }
    }

    #[test]
    fn raw_snappy_of_other_clients_is_read() {
        let raw = snap::raw::Encoder::new().compress_vec(b"record record record").expect("compress");
        assert_eq!(decompress(Compression::Snappy, &raw).expect("decompress"), b"record record record");
    }

    #[test]
    fn damage_is_an_error_and_a_bomb_does_not_fill_the_memory() {
        for compression in &ALL[1..] {
            assert!(decompress(*compression, b"\x82nonsense nonsense").is_err(), "{compression:?}");
        }
        let mut bomb = Vec::new();
        let mut encoder = zstd::stream::write::Encoder::new(&mut bomb, 1).expect("encoder");
        io::copy(&mut io::repeat(0).take(DECOMPRESSED_BYTES_MAX + 1), &mut encoder).expect("compress");
        encoder.finish().expect("finish");
        assert!(decompress(Compression::Zstd, &bomb).unwrap_err().to_string().contains("256 MiB"));
        // A raw snappy block that claims 4 GiB.
        assert!(decompress(Compression::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).is_err());
    }
}
