//! Members of an object as they are written, for formats whose records are an envelope around the row.

use super::decode::{BYTE_ORDER_MARK, not_an_object};
use super::scan::{Scanner, Syntax};
use crate::format::Reject;

/// The values of some members of the object that a record is, as they are written; `None` where one is null or is not there. Of members of one name the last
/// counts.
///
/// # Errors
/// When the record is not one complete object.
pub fn members<'a, const N: usize>(record: &'a [u8], names: [&str; N]) -> Result<[Option<&'a [u8]>; N], Reject> {
    let record = record.strip_prefix(BYTE_ORDER_MARK).unwrap_or(record);
    if let Err(error) = std::str::from_utf8(record) {
        return Err(Reject::new(format!("not UTF-8 at byte {}", error.valid_up_to())));
    }
    scan(record, names).map_err(|syntax| not_an_object(record, syntax))
}

fn scan<'a, const N: usize>(record: &'a [u8], names: [&str; N]) -> Result<[Option<&'a [u8]>; N], Syntax> {
    let mut found = [None; N];
    let mut scanner = Scanner::new(record);
    scanner.take(b'{', "a JSON object")?;
    if !scanner.take_if(b'}') {
        loop {
            let key = scanner.key()?;
            let wanted = names.iter().position(|name| !key.escaped && key.raw == name.as_bytes());
            let first = scanner.peek();
            let start = scanner.position();
            scanner.skip_value()?;
            if let Some(wanted) = wanted {
                found[wanted] = (first != Some(b'n')).then(|| scanner.since(start));
            }
            if !scanner.take_if(b',') {
                break;
            }
        }
        scanner.take(b'}', "',' or '}'")?;
    }
    scanner.end()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_name() {
        let text = |record: &str, name: &str| {
            let found = members(record.as_bytes(), [name]).map_err(|reject| reject.reason);
            found.map(|[found]| found.map(|value| String::from_utf8_lossy(value).into_owned()))
        };
        assert_eq!(text(r#"{"a": {"b": [1, "}"]}, "b" : null}"#, "a"), Ok(Some(r#"{"b": [1, "}"]}"#.to_owned())));
        assert_eq!(text(r#"{"a": 1, "a": 2}"#, "a"), Ok(Some("2".to_owned())));
        assert_eq!(text(r#"{"a": 1, "a": null}"#, "a"), Ok(None));
        assert_eq!(text("{}", "a"), Ok(None));
        assert!(text(r#"{"a": 1"#, "a").is_err_and(|reason| reason.contains("expected ',' or '}' at byte 7")));
        assert!(text("[]", "a").is_err());
    }
}
