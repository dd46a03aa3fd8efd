//! The key of a JSON record that was sent without one: the texts of some of its fields, as the `stream` connector makes
//! them from columns, so that records of both go to the same shards.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// The property of a stream that names the columns of its keys.
const KEY_FIELDS: &str = "key.fields";
/// What stands between the texts of several fields.
const SEPARATOR: u8 = 0x1f;

/// The fields that make a key, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyFields(Vec<String>);

impl KeyFields {
    /// Those that were asked for, or else those of the stream.
    pub(crate) fn new(asked: &[String], properties: &BTreeMap<String, String>) -> Self {
        if !asked.is_empty() {
            return KeyFields(asked.to_vec());
        }
        let listed = properties.get(KEY_FIELDS).map(String::as_str).unwrap_or_default();
        KeyFields(listed.split([';', ',']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of a record, made in `scratch`; `None` when it is no JSON object or none of the fields has a value.
    pub(crate) fn of<'a>(&self, record: &[u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if self.is_empty() {
            return None;
        }
        let mut found: Vec<Option<Value>> = vec![None; self.0.len()];
        let mut json = serde_json::Deserializer::from_slice(record);
        Wanted { fields: &self.0, found: &mut found }.deserialize(&mut json).ok()?;
        json.end().ok()?;
        if found.iter().all(|value| value.as_ref().is_none_or(Value::is_null)) {
            return None;
        }
        scratch.clear();
        for (index, value) in found.into_iter().enumerate() {
            if index > 0 {
                scratch.push(SEPARATOR);
            }
            match value {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => scratch.extend_from_slice(text.as_bytes()),
                Some(other) => scratch.extend_from_slice(other.to_string().as_bytes()),
            }
        }
        Some(scratch)
    }
}

/// Reads an object's wanted fields and skips the others.
struct Wanted<'a> {
    fields: &'a [String],
    found: &'a mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            match self.fields.iter().position(|field| *field == name) {
                Some(index) => self.found[index] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fields: &[&str], record: &str) -> Option<String> {
        let fields = KeyFields(fields.iter().map(|field| (*field).to_owned()).collect());
        let mut scratch = Vec::new();
        fields.of(record.as_bytes(), &mut scratch).map(|key| String::from_utf8_lossy(key).into_owned())
    }

    #[test]
    fn a_key_is_the_text_of_its_fields() {
        let record = r#"{"carrier": "UA", "flight": 1545, "tags": {"carrier": "x"}, "gate": null}"#;
        assert_eq!(key(&["carrier"], record).as_deref(), Some("UA"));
        assert_eq!(key(&["flight", "carrier"], record).as_deref(), Some("1545\u{1f}UA"));
        assert_eq!(key(&["gate", "carrier"], record).as_deref(), Some("\u{1f}UA"));
        assert_eq!(key(&["gate"], record), None);
        assert_eq!(key(&["missing"], record), None);
        assert_eq!(key(&["carrier"], "not json"), None);
        assert_eq!(key(&["carrier"], r#"{"carrier": "UA"} trailing"#), None);
        assert_eq!(key(&[], record), None);
    }

    #[test]
    fn the_streams_fields_are_the_default() {
        let properties = BTreeMap::from([("key.fields".to_owned(), "a; b".to_owned())]);
        assert_eq!(KeyFields::new(&[], &properties).0, ["a", "b"]);
        assert_eq!(KeyFields::new(&["c".to_owned()], &properties).0, ["c"]);
    }
}
