//! The values of metrics at one moment, by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use coulee_model::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::builtin;
use super::definition::{Definition, Merge};

/// The values of a subtask's metrics, or of an operator's over its subtasks, by name. A metric without a value is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<Cow<'static, str>, i64>);

/// A value as an earlier version may have stored it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Value(i64),
    Other(IgnoredAny),
}

impl<'de> Deserialize<'de> for Figures {
    /// Leaves out what is not a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = BTreeMap::<String, Stored>::deserialize(deserializer)?;
        Ok(stored
            .into_iter()
            .filter_map(|(name, value)| match value {
                Stored::Value(value) => Some((name, value)),
                Stored::Other(_) => None,
            })
            .collect())
    }
}

impl FromIterator<(String, i64)> for Figures {
    fn from_iter<T: IntoIterator<Item = (String, i64)>>(values: T) -> Self {
        Figures(values.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect())
    }
}

impl<const N: usize> From<[(&'static Definition, i64); N]> for Figures {
    fn from(values: [(&'static Definition, i64); N]) -> Self {
        Figures(values.into_iter().map(|(metric, value)| (Cow::Borrowed(metric.name), value)).collect())
    }
}

impl Figures {
    /// The value of a metric, if it has one.
    pub fn get(&self, metric: &Definition) -> Option<i64> {
        self.0.get(metric.name).copied()
    }

    /// Sets the value of a metric.
    pub fn set(&mut self, metric: &'static Definition, value: i64) {
        self.0.insert(Cow::Borrowed(metric.name), value);
    }

    /// Takes away the value of a metric.
    pub fn clear(&mut self, metric: &Definition) {
        self.0.remove(metric.name);
    }

    /// Every value with the name of its metric, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// Of those, the values that an operator or a connector counts of its own, beside the [`builtin`] ones.
    pub fn declared(&self) -> impl Iterator<Item = (&str, i64)> {
        self.iter().filter(|(name, _)| builtin::ALL.iter().all(|metric| metric.name != *name))
    }

    /// Takes in the values of another subtask, each in the way that `merge` says for its name.
    pub fn merge(&mut self, other: &Figures, merge: impl Fn(&str) -> Merge) {
        for (name, value) in &other.0 {
            let merged = self.0.get(name).map_or(*value, |known| merge(name).of(*known, *value));
            self.0.insert(name.clone(), merged);
        }
    }

    /// A count; 0 without a value.
    pub fn count(&self, metric: &Definition) -> u64 {
        self.get(metric).map_or(0, |value| value.max(0) as u64)
    }

    fn micros(&self, metric: &Definition) -> Duration {
        Duration::from_micros(self.count(metric))
    }

    /// See [`builtin::ROWS_IN`].
    pub fn rows_in(&self) -> u64 {
        self.count(&builtin::ROWS_IN)
    }

    /// See [`builtin::ROWS_OUT`].
    pub fn rows_out(&self) -> u64 {
        self.count(&builtin::ROWS_OUT)
    }

    /// See [`builtin::BYTES_IN`].
    pub fn bytes_in(&self) -> u64 {
        self.count(&builtin::BYTES_IN)
    }

    /// See [`builtin::BYTES_OUT`].
    pub fn bytes_out(&self) -> u64 {
        self.count(&builtin::BYTES_OUT)
    }

    /// See [`builtin::LATE_ROWS`].
    pub fn late_rows(&self) -> u64 {
        self.count(&builtin::LATE_ROWS)
    }

    /// See [`builtin::TIMELESS_ROWS`].
    pub fn timeless_rows(&self) -> u64 {
        self.count(&builtin::TIMELESS_ROWS)
    }

    /// See [`builtin::REJECTED_ROWS`].
    pub fn rejected_rows(&self) -> u64 {
        self.count(&builtin::REJECTED_ROWS)
    }

    /// See [`builtin::DELIVERED_OBJECTS`].
    pub fn delivered_objects(&self) -> u64 {
        self.count(&builtin::DELIVERED_OBJECTS)
    }

    /// See [`builtin::DELIVERED_ROWS`].
    pub fn delivered_rows(&self) -> u64 {
        self.count(&builtin::DELIVERED_ROWS)
    }

    /// See [`builtin::DELIVERED_BYTES`].
    pub fn delivered_bytes(&self) -> u64 {
        self.count(&builtin::DELIVERED_BYTES)
    }

    /// See [`builtin::STATE_BYTES`].
    pub fn state_bytes(&self) -> u64 {
        self.count(&builtin::STATE_BYTES)
    }

    /// See [`builtin::BUSY`].
    pub fn busy(&self) -> Duration {
        self.micros(&builtin::BUSY)
    }

    /// See [`builtin::BLOCKED`].
    pub fn blocked(&self) -> Duration {
        self.micros(&builtin::BLOCKED)
    }

    /// See [`builtin::IDLE`].
    pub fn idle(&self) -> Duration {
        self.micros(&builtin::IDLE)
    }

    /// See [`builtin::ALIGNMENT`].
    pub fn alignment(&self) -> Duration {
        self.micros(&builtin::ALIGNMENT)
    }

    /// See [`builtin::WATERMARK`].
    pub fn watermark(&self) -> Option<Timestamp> {
        self.get(&builtin::WATERMARK).map(Timestamp)
    }

    /// See [`builtin::NEXT_RESULT`].
    pub fn next_result(&self) -> Option<Timestamp> {
        self.get(&builtin::NEXT_RESULT).map(Timestamp)
    }

    /// See [`builtin::LAG`].
    pub fn lag(&self) -> Option<u64> {
        self.get(&builtin::LAG).map(|lag| lag.max(0) as u64)
    }

    /// See [`builtin::DELIVERING`].
    pub fn delivering(&self) -> Option<Duration> {
        self.get(&builtin::DELIVERING).map(|millis| Duration::from_millis(millis.max(0) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_subtasks_become_one_as_their_metrics_say() {
        let rule = |name: &str| match name {
            "watermark_ms" => Merge::Lowest,
            "alignment_us" => Merge::Highest,
            _ => Merge::Sum,
        };
        let mut all = Figures::from([(&builtin::ROWS_IN, 1), (&builtin::WATERMARK, 7), (&builtin::ALIGNMENT, 3)]);
        all.merge(&Figures::from([(&builtin::ROWS_IN, 2), (&builtin::WATERMARK, 5), (&builtin::ALIGNMENT, 2)]), rule);
        all.merge(&Figures::from([(&builtin::ROWS_IN, 4), (&builtin::LAG, 9)]), rule);
        let expected = [("alignment_us", 3), ("lag", 9), ("rows_in", 7), ("watermark_ms", 5)];
        assert_eq!(all.iter().collect::<Vec<_>>(), expected);
        assert_eq!((all.rows_in(), all.watermark(), all.lag()), (7, Some(Timestamp(5)), Some(9)));
        assert_eq!((all.rows_out(), all.next_result()), (0, None));
    }

    #[test]
    fn figures_are_stored_by_name_and_those_of_an_earlier_version_are_read() {
        let stored = r#"{"late_rows":4,"rows_in":3}"#;
        let figures = Figures::from([(&builtin::ROWS_IN, 3), (&builtin::LATE_ROWS, 4)]);
        assert_eq!(serde_json::to_string(&figures).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Figures>(stored).unwrap(), figures);
        let former = r#"{"rows_in":3,"late_rows":4,"busy":{"secs":1,"nanos":2},"last_reject":null,"share":0.5}"#;
        assert_eq!(serde_json::from_str::<Figures>(former).unwrap(), figures);
    }
}
