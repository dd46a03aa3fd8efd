//! Keys of maps in a form whose bytes sort as the values do.

use coulee_model::Timestamp;

use crate::{Error, Result};

/// Something that can be the key of a map's entry. Encoded keys sort as the values do, and none is the beginning of another.
pub trait KeyPart: Sized {
    /// Appends the encoded key.
    fn encode_key(&self, out: &mut Vec<u8>);

    /// Takes a key off the front of `bytes`.
    ///
    /// # Errors
    /// `Corrupt` when there is none.
    fn decode_key(bytes: &mut &[u8]) -> Result<Self>;
}

fn damaged() -> Error {
    Error::corrupt("the key of a stored map entry is damaged")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(*first)
}

macro_rules! unsigned {
    ($($number:ty),*) => {$(
        impl KeyPart for $number {
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
                Ok(<$number>::from_be_bytes(take(bytes)?))
            }
        }
    )*};
}

/// Signed numbers are moved up so that the lowest becomes 0.
macro_rules! signed {
    ($($number:ty as $unsigned:ty),*) => {$(
        impl KeyPart for $number {
            fn encode_key(&self, out: &mut Vec<u8>) {
                ((*self as $unsigned) ^ (1 << (<$unsigned>::BITS - 1))).encode_key(out);
            }

            fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
                Ok((<$unsigned>::decode_key(bytes)? ^ (1 << (<$unsigned>::BITS - 1))) as $number)
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64);
signed!(i32 as u32, i64 as u64);

impl KeyPart for Timestamp {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        i64::decode_key(bytes).map(Timestamp)
    }
}

/// `00` becomes `00 FF`, and `00 00` ends the text.
impl KeyPart for String {
    fn encode_key(&self, out: &mut Vec<u8>) {
        for byte in self.bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(0xFF);
            }
        }
        out.extend_from_slice(&[0, 0]);
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        let mut text = Vec::new();
        loop {
            match take::<1>(bytes)? {
                [0] => match take::<1>(bytes)? {
                    [0] => return String::from_utf8(text).map_err(|_| damaged()),
                    [0xFF] => text.push(0),
                    _ => return Err(damaged()),
                },
                [byte] => text.push(byte),
            }
        }
    }
}

impl<A: KeyPart, B: KeyPart> KeyPart for (A, B) {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
        self.1.encode_key(out);
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        Ok((A::decode_key(bytes)?, B::decode_key(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded<K: KeyPart>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn keys_come_back_and_sort_as_their_values(
            a in any::<((i64, String), (i32, u16))>(),
            b in any::<((i64, String), (i32, u16))>(),
            same_first in any::<bool>(),
        ) {
            let b = if same_first { ((a.0.0, b.0.1), b.1) } else { b };
            let (bytes_a, bytes_b) = (encoded(&a), encoded(&b));
            prop_assert_eq!(a.cmp(&b), bytes_a.cmp(&bytes_b));
            prop_assert!(a == b || !bytes_a.starts_with(&bytes_b));
            let mut rest = &bytes_a[..];
            prop_assert_eq!(<((i64, String), (i32, u16))>::decode_key(&mut rest).unwrap(), a);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        for bytes in [&b""[..], b"abc", b"a\0", b"a\0\x01", b"\xFF\0\0"] {
            assert!(String::decode_key(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
        assert!(u32::decode_key(&mut &b"abc"[..]).is_err());
    }
}
