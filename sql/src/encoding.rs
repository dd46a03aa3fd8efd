//! The text of a script from its bytes: UTF-8, or UTF-16 as editors on Windows write it, with or without a byte-order mark.

/// The text of a script.
///
/// # Errors
/// Where the bytes are not text, as a sentence for the user.
pub fn script_text(bytes: Vec<u8>) -> Result<String, String> {
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line} is not UTF-8: save the script as UTF-8")
        }),
    }
}

fn utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Result<String, String> {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    String::from_utf16(&units)
        .map_err(|_| "the script is not UTF-16, as its first bytes say: save it as UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_several_editors_are_read() {
        let text = "SELECT 'ä€'";
        let le: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let be: Vec<u8> = [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        for bytes in [text.as_bytes().to_vec(), le, be] {
            assert_eq!(script_text(bytes).as_deref(), Ok(text));
        }
        let latin = b"SELECT 1;\n-- T\xe4glich\n".to_vec();
        assert_eq!(script_text(latin), Err("line 2 is not UTF-8: save the script as UTF-8".to_owned()));
    }
}
