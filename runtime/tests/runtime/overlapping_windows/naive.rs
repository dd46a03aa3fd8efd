//! What windows give, by their definition: for each window, the rows that came before it fired.

use std::collections::BTreeMap;

use coulee_runtime::RowKind;
use coulee_runtime::window::{WindowKind, Windows};

use crate::windows::{InputRow, shown};

/// A row or change, and the watermark at which it came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub kind: RowKind,
    pub row: InputRow,
    pub watermark: i64,
}

/// The windows `[start, end)` that hold an instant.
fn windows_of(windows: &Windows, time: i64) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for n in -1_000..1_000 {
        let offset = windows.offset_millis();
        match windows.kind() {
            WindowKind::Tumbling { size_millis: size } => all.push((offset + n * size, offset + (n + 1) * size)),
            WindowKind::Hopping { size_millis, slide_millis } => {
                all.push((offset + n * slide_millis, offset + n * slide_millis + size_millis));
            }
            WindowKind::Cumulating { max_size_millis, step_millis } => {
                let start = offset + n * max_size_millis;
                all.extend((1..=max_size_millis / step_millis).map(|steps| (start, start + steps * step_millis)));
            }
        }
    }
    all.retain(|(start, end)| (*start..*end).contains(&time));
    assert!(!all.is_empty(), "the time {time} is out of the range of this oracle");
    all
}

/// A window has fired once the watermark has reached its last millisecond.
fn is_open((_, end): &(i64, i64), watermark: i64) -> bool {
    watermark < end - 1
}

/// A window's bounds and a key.
type Held<'a> = ((i64, i64), Option<&'a str>);

/// The result's lines: `window_start | window_end | key | n | sum | max`, sorted.
pub fn naive(windows: &Windows, keyed: bool, arrivals: &[Arrival]) -> Vec<String> {
    // Of each window and key, how often each value is there.
    let mut held: BTreeMap<Held<'_>, BTreeMap<Option<i64>, i64>> = BTreeMap::new();
    for Arrival { kind, row: (time, key, value), watermark } in arrivals {
        let Some(time) = time else { continue };
        for window in windows_of(windows, *time).into_iter().filter(|window| is_open(window, *watermark)) {
            let key = if keyed { *key } else { None };
            let times = held.entry((window, key)).or_default().entry(*value).or_default();
            *times += if kind.is_retraction() { -1 } else { 1 };
        }
    }
    let mut lines = Vec::new();
    for (((start, end), key), values) in held {
        let values: Vec<i64> = values
            .into_iter()
            .flat_map(|(value, times)| {
                assert!(times >= 0, "these histories take nothing back that did not come");
                std::iter::repeat_n(value.expect("these histories have no null value"), times as usize)
            })
            .collect();
        let Some(max) = values.iter().max() else { continue };
        let key = if keyed { format!("{} | ", key.unwrap_or_default()) } else { String::new() };
        let sum = values.iter().sum::<i64>();
        lines.push(format!("{} | {} | {key}{} | {sum} | {max}", shown(start), shown(end), values.len()));
    }
    lines.sort();
    lines
}

/// How many rows came when all their windows had fired, and how many when some had.
pub fn late(windows: &Windows, arrivals: &[Arrival]) -> (u64, u64) {
    let (mut all, mut some) = (0, 0);
    for Arrival { row, watermark, .. } in arrivals {
        let Some(time) = row.0 else { continue };
        let of_row = windows_of(windows, time);
        let open = of_row.iter().filter(|window| is_open(window, *watermark)).count();
        all += u64::from(open == 0);
        some += u64::from(open > 0 && open < of_row.len());
    }
    (all, some)
}
