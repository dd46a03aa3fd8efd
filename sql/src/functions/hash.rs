//! Hashes of a text's UTF-8, in lower-case hexadecimal digits.

use arrow::array::ArrayRef;
use datafusion_common::{Result, exec_err};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::call::Call;
use super::definition::Kind::{Text, Whole};
use super::definition::{Function, Nulls, Takes, gives};

const ONE_TEXT: Takes = Takes::These(1, &[Text]);

pub(crate) static HASH: &[Function] = &[
    Function::new("MD5", "MD5(text)", "the MD5 hash as 32 digits", ONE_TEXT, gives::text, Nulls::Strict, hash::<Md5>),
    Function::new(
        "SHA1",
        "SHA1(text)",
        "the SHA-1 hash as 40 digits",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        hash::<Sha1>,
    ),
    Function::new(
        "SHA224",
        "SHA224(text)",
        "the SHA-224 hash as 56 digits",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        hash::<Sha224>,
    ),
    Function::new(
        "SHA256",
        "SHA256(text)",
        "the SHA-256 hash as 64 digits",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        hash::<Sha256>,
    ),
    Function::new(
        "SHA384",
        "SHA384(text)",
        "the SHA-384 hash as 96 digits",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        hash::<Sha384>,
    ),
    Function::new(
        "SHA512",
        "SHA512(text)",
        "the SHA-512 hash as 128 digits",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        hash::<Sha512>,
    ),
    Function::new(
        "SHA2",
        "SHA2(text, bits)",
        "the SHA-2 hash of 224, 256, 384 or 512 bits",
        Takes::These(2, &[Text, Whole]),
        gives::text,
        Nulls::Strict,
        sha2,
    ),
];

fn hash<D: Digest>(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        digest::<D>(texts.get(row)?, out);
        Some(())
    })
}

fn digest<D: Digest>(text: &str, out: &mut String) {
    push_hex(out, &D::digest(text.as_bytes()));
}

/// Appends bytes in lower-case hexadecimal digits.
pub(super) fn push_hex(out: &mut String, bytes: &[u8]) {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
    bytes.iter().for_each(|byte| out.extend([digit(byte >> 4), digit(*byte)]));
}

fn sha2(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, bits) = (call.texts(0)?, call.wholes(1)?);
    call.try_text_rows(|row, out| {
        let (Some(text), Some(bits)) = (texts.get(row), bits.get(row)) else { return Ok(None) };
        match bits {
            224 => digest::<Sha224>(text, out),
            256 => digest::<Sha256>(text, out),
            384 => digest::<Sha384>(text, out),
            512 => digest::<Sha512>(text, out),
            _ => return exec_err!("SHA2: {bits} bits are no SHA-2 hash, expected 224, 256, 384 or 512"),
        }
        Ok(Some(()))
    })
}
