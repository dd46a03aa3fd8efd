//! Prometheus' text format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::catalogue::Metric;

/// Samples, gathered by metric: the format wants all samples of one together.
#[derive(Debug)]
pub(super) struct Exposition {
    metrics: &'static [&'static Metric],
    samples: BTreeMap<&'static str, String>,
}

impl Exposition {
    /// Without any sample. `metrics` are written in this order, whether they have samples or not.
    pub(super) fn new(metrics: &'static [&'static Metric]) -> Self {
        Exposition { metrics, samples: BTreeMap::new() }
    }

    /// Adds a sample: one value per label of the metric.
    pub(super) fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        assert_eq!(labels.len(), metric.labels.len(), "{} has the labels {:?}", metric.name, metric.labels);
        let text = self.samples.entry(metric.name).or_default();
        text.push_str(metric.name);
        for (index, (label, value)) in metric.labels.iter().zip(labels).enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(text, "{open}{label}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {}", number(value));
    }

    /// Adds a sample if there is a value.
    pub(super) fn some(&mut self, metric: &'static Metric, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, labels, value);
        }
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        let mut text = String::new();
        for metric in self.metrics {
            let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(text, "# HELP {} {help}", metric.name);
            let _ = writeln!(text, "# TYPE {} {}", metric.name, metric.kind.word());
            text.push_str(self.samples.get(metric.name).map_or("", String::as_str));
        }
        text
    }
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A number as Go reads it.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value if value.is_nan() => "NaN".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Kind;
    use super::*;

    static BARE: Metric =
        Metric { name: "a_total", kind: Kind::Counter, labels: &[], help: "Lines\nand \\.", of: None };
    static TWO: Metric = Metric { name: "b_bytes", kind: Kind::Gauge, labels: &["x", "y"], help: "Help.", of: None };
    static BOTH: &[&Metric] = &[&BARE, &TWO];

    #[test]
    fn samples_stand_below_their_metric_and_text_is_escaped() {
        let mut out = Exposition::new(BOTH);
        out.add(&TWO, &["a\"b\\c\nd", ""], 1.5);
        out.add(&BARE, &[], 12_345_678_901.0);
        out.add(&TWO, &["e", "f"], f64::INFINITY);
        out.some(&TWO, &["g", "h"], None);
        let expected = "# HELP a_total Lines\\nand \\\\.\n# TYPE a_total counter\na_total 12345678901\n\
                        # HELP b_bytes Help.\n# TYPE b_bytes gauge\n\
                        b_bytes{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.5\nb_bytes{x=\"e\",y=\"f\"} +Inf\n";
        assert_eq!(out.finish(), expected);
    }

    #[test]
    #[should_panic(expected = "b_bytes has the labels")]
    fn a_sample_has_all_labels() {
        Exposition::new(BOTH).add(&TWO, &["only one"], 0.0);
    }
}
