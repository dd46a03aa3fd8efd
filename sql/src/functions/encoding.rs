//! Text as other text or bytes: Base64, hexadecimal, binary, character sets, URL encoding, IPv4 addresses.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Int64Type};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use datafusion_common::{DataFusionError, Result, exec_err};

use super::call::{Call, push_number};
use super::definition::Kind::{Bytes, Text, Whole};
use super::definition::{Function, Nulls, Takes, gives, is_text};
use super::hash::push_hex;

/// Java's basic decoder takes padding and does without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

const ONE_TEXT: Takes = Takes::These(1, &[Text]);

pub(crate) static ENCODING: &[Function] = &[
    Function::new(
        "TO_BASE64",
        "TO_BASE64(text)",
        "in Base64: TO_BASE64('a') = 'YQ=='",
        Takes::Own(|types| match types {
            [given] => Some(vec![Bytes.convert(given).filter(|_| *given != DataType::Null).or(Text.convert(given))?]),
            _ => None,
        }),
        gives::text,
        Nulls::Strict,
        to_base64,
    ),
    Function::new(
        "FROM_BASE64",
        "FROM_BASE64(text)",
        "from Base64: FROM_BASE64('YQ==') = 'a'",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        from_base64,
    ),
    Function::new(
        "HEX",
        "HEX(number | text)",
        "a whole number or a text's UTF-8 in hexadecimal digits: HEX(20) = '14', HEX('é') = 'C3A9'",
        Takes::Own(|types| match types {
            [given] => Some(vec![if is_text(given) { DataType::Utf8 } else { Whole.convert(given)? }]),
            _ => None,
        }),
        gives::text,
        Nulls::Strict,
        hex,
    ),
    Function::new(
        "UNHEX",
        "UNHEX(text)",
        "BYTES from hexadecimal digits; null for other text: UNHEX('6162') = x'6162'",
        ONE_TEXT,
        gives::bytes,
        Nulls::Own,
        unhex,
    ),
    Function::new(
        "BIN",
        "BIN(number)",
        "a whole number in binary digits: BIN(4) = '100'",
        Takes::These(1, &[Whole]),
        gives::text,
        Nulls::Strict,
        bin,
    ),
    Function::new(
        "ENCODE",
        "ENCODE(text, charset)",
        "BYTES in a character set (US-ASCII, ISO-8859-1, UTF-8, UTF-16BE, UTF-16LE, UTF-16)",
        Takes::These(2, &[Text, Text]),
        gives::bytes,
        Nulls::Strict,
        encode,
    ),
    Function::new(
        "DECODE",
        "DECODE(bytes, charset)",
        "text from BYTES in a character set",
        Takes::These(2, &[Bytes, Text]),
        gives::text,
        Nulls::Strict,
        decode,
    ),
    Function::new(
        "URL_ENCODE",
        "URL_ENCODE(text)",
        "as a form encodes it: URL_ENCODE('a b') = 'a+b'",
        ONE_TEXT,
        gives::text,
        Nulls::Strict,
        url_encode,
    ),
    Function::new(
        "URL_DECODE",
        "URL_DECODE(text)",
        "as a form was encoded; null where a % has no two digits: URL_DECODE('a%20b') = 'a b'",
        ONE_TEXT,
        gives::text,
        Nulls::Own,
        url_decode,
    ),
    Function::new(
        "INET_ATON",
        "INET_ATON(text)",
        "an IPv4 address as a number; null for other text: INET_ATON('127.0.0.1') = 2130706433",
        ONE_TEXT,
        gives::bigint,
        Nulls::Own,
        inet_aton,
    ),
    Function::new(
        "INET_NTOA",
        "INET_NTOA(number)",
        "an IPv4 address from its number: INET_NTOA(2130706433) = '127.0.0.1'",
        Takes::These(1, &[Whole]),
        gives::text,
        Nulls::Own,
        inet_ntoa,
    ),
];

fn to_base64(call: &Call<'_>) -> Result<ArrayRef> {
    if is_text(call.raw(0)?.data_type()) {
        let texts = call.texts(0)?;
        return call.text_rows(|row, out| {
            BASE64.encode_string(texts.get(row)?, out);
            Some(())
        });
    }
    let bytes = call.bytes(0)?;
    call.text_rows(|row, out| {
        BASE64.encode_string(bytes.get(row)?, out);
        Some(())
    })
}

fn from_base64(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let mut bytes = Vec::new();
    call.try_text_rows(|row, out| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        bytes.clear();
        let decoded = BASE64.decode_vec(text, &mut bytes);
        decoded.map_err(|error| DataFusionError::Execution(format!("FROM_BASE64: '{text}' is no Base64: {error}")))?;
        out.push_str(&String::from_utf8_lossy(&bytes));
        Ok(Some(()))
    })
}

fn hex(call: &Call<'_>) -> Result<ArrayRef> {
    if is_text(call.raw(0)?.data_type()) {
        let texts = call.texts(0)?;
        return call.text_rows(|row, out| {
            push_hex(out, texts.get(row)?.as_bytes());
            out.make_ascii_uppercase();
            Some(())
        });
    }
    let numbers = call.wholes(0)?;
    call.text_rows(|row, out| {
        push_number(out, format_args!("{:X}", numbers.get(row)?));
        Some(())
    })
}

fn unhex(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.bytes_rows(|row, out| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let Some(digits) = digits else { return Ok(None) };
        let mut rest = digits.as_slice();
        if rest.len() % 2 == 1 {
            // Flink drops a first digit that has no partner.
            out.push(0);
            rest = &rest[1..];
        }
        out.extend(rest.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]));
        Ok(Some(()))
    })
}

fn bin(call: &Call<'_>) -> Result<ArrayRef> {
    let numbers = call.wholes(0)?;
    call.text_rows(|row, out| {
        push_number(out, format_args!("{:b}", numbers.get(row)?));
        Some(())
    })
}

/// A character set that Java always has.
#[derive(Clone, Copy)]
enum Charset {
    Ascii,
    Latin1,
    Utf8,
    Utf16 { big: bool, mark: bool },
}

fn charset(function: &str, name: &str) -> Result<Charset> {
    Ok(match name.to_uppercase().as_str() {
        "US-ASCII" | "ASCII" => Charset::Ascii,
        "ISO-8859-1" | "LATIN1" => Charset::Latin1,
        "UTF-8" | "UTF8" => Charset::Utf8,
        "UTF-16BE" => Charset::Utf16 { big: true, mark: false },
        "UTF-16LE" => Charset::Utf16 { big: false, mark: false },
        "UTF-16" => Charset::Utf16 { big: true, mark: true },
        _ => {
            return exec_err!(
                "{function}: unknown character set '{name}', expected US-ASCII, ISO-8859-1, UTF-8, UTF-16BE, UTF-16LE or UTF-16"
            );
        }
    })
}

fn encode(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, charsets) = (call.texts(0)?, call.texts(1)?);
    call.bytes_rows(|row, out| {
        let (Some(text), Some(name)) = (texts.get(row), charsets.get(row)) else { return Ok(None) };
        let narrow = |limit: u32| {
            move |c: char| u8::try_from(u32::from(c)).ok().filter(|byte| u32::from(*byte) < limit).unwrap_or(b'?')
        };
        match charset("ENCODE", name)? {
            Charset::Ascii => out.extend(text.chars().map(narrow(128))),
            Charset::Latin1 => out.extend(text.chars().map(narrow(256))),
            Charset::Utf8 => out.extend(text.bytes()),
            Charset::Utf16 { big, mark } => {
                let units = mark.then_some(0xfeff).filter(|_| !text.is_empty()).into_iter().chain(text.encode_utf16());
                units.for_each(|unit| out.extend(if big { unit.to_be_bytes() } else { unit.to_le_bytes() }));
            }
        }
        Ok(Some(()))
    })
}

fn decode(call: &Call<'_>) -> Result<ArrayRef> {
    let (bytes, charsets) = (call.bytes(0)?, call.texts(1)?);
    call.try_text_rows(|row, out| {
        let (Some(bytes), Some(name)) = (bytes.get(row), charsets.get(row)) else { return Ok(None) };
        match charset("DECODE", name)? {
            Charset::Ascii => {
                out.extend(bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '\u{fffd}' }));
            }
            Charset::Latin1 => out.extend(bytes.iter().map(|byte| char::from(*byte))),
            Charset::Utf8 => out.push_str(&String::from_utf8_lossy(bytes)),
            Charset::Utf16 { big, mark } => {
                let (big, bytes) = match bytes {
                    [0xff, 0xfe, rest @ ..] if mark => (false, rest),
                    [0xfe, 0xff, rest @ ..] if mark => (true, rest),
                    _ => (big, bytes),
                };
                let unit = |pair: &[u8]| {
                    let pair = [pair[0], pair[1]];
                    if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
                };
                let pairs = bytes.chunks_exact(2);
                let rest = pairs.remainder();
                out.extend(char::decode_utf16(pairs.map(unit)).map(|unit| unit.unwrap_or('\u{fffd}')));
                if !rest.is_empty() {
                    out.push('\u{fffd}');
                }
            }
        }
        Ok(Some(()))
    })
}

fn url_encode(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        for byte in texts.get(row)?.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
                b' ' => out.push('+'),
                _ => push_number(out, format_args!("%{byte:02X}")),
            }
        }
        Some(())
    })
}

fn url_decode(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        let text = texts.get(row)?;
        if !text.contains(['%', '+']) {
            out.push_str(text);
            return Some(());
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                    bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                    rest = &after[2..];
                }
                byte => bytes.push(*byte),
            }
        }
        out.push_str(&String::from_utf8_lossy(&bytes));
        Some(())
    })
}

/// MySQL's short forms too: the last part fills what is left, `127.1` is `127.0.0.1`.
fn address(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 || parts.iter().any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let (last, first) = parts.split_last()?;
    let mut address: i64 = 0;
    for part in first {
        address = address << 8 | i64::from(part.parse::<u8>().ok()?);
    }
    let bits = 8 * (4 - first.len());
    let last: i64 = last.parse().ok()?;
    (last < 1 << bits).then_some(address << bits | last)
}

fn inet_aton(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.rows_of::<Int64Type>(|row| address(texts.get(row)?))
}

fn inet_ntoa(call: &Call<'_>) -> Result<ArrayRef> {
    let numbers = call.wholes(0)?;
    call.text_rows(|row, out| {
        let address = u32::try_from(numbers.get(row)?).ok()?;
        push_number(out, std::net::Ipv4Addr::from(address));
        Some(())
    })
}
