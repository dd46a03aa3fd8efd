//! Spans of time as people read them.

use std::time::Duration;

/// `12 ms`, `3.4 s`, `2 min 5 s`, `1 h 2 min`, `3 d 4 h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=59 => format!("{:.1} s", duration.as_secs_f64()),
        60..=3_599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..=172_799 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [12, 3_400, 125_000, 3_720_000, 273_600_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["12 ms", "3.4 s", "2 min 5 s", "1 h 2 min", "3 d 4 h"]);
    }
}
