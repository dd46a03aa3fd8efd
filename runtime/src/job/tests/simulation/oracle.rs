//! What must have come out: computed from the input alone, by sorting and counting.
//!
//! A row may be late only where event time can have run ahead of its split: behind a place where the split was new or had been idle. From there on, up to the
//! next such place, event time cannot pass the split again. So the windows of the rows that were late there end before those of the others with
//! their key.

use std::collections::{BTreeMap, BTreeSet};

use super::functions::bucket_end;
use super::scenario::{InputRow, Scenario, WINDOW_MILLIS};
use super::world::World;

/// Compares what the sinks show with the input. `read`: how many rows the sources counted.
pub(super) fn check(scenario: &Scenario, world: &World, read: u64) -> Result<(), String> {
    world.check()?;
    let rows: Vec<&InputRow> = scenario.rows().map(|(_, _, row)| row).collect();
    let good: Vec<&InputRow> = rows.iter().copied().filter(|row| row.value != 0).collect();
    if read != rows.len() as u64 {
        return Err(format!("the sources counted {read} rows of {}", rows.len()));
    }
    let passed: Vec<String> = good.iter().map(|row| format!("{}|{}", row.id, 1000 / row.value)).collect();
    same("rows", &world.visible("rows"), passed)?;
    let letters = world.visible("letters");
    let ids = letters.iter().map(|letter| letter_id(letter)).collect::<Result<Vec<i64>, String>>()?;
    same("letters", &texts(ids), texts(scenario.broken()))?;
    check_windows(scenario, world, &good)?;
    check_buckets(scenario, world, &good)?;
    check_numbers(world, &good)
}

fn texts(ids: impl IntoIterator<Item = i64>) -> Vec<String> {
    let mut texts: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    texts.sort_unstable();
    texts
}

/// `shown` is sorted.
fn same(sink: &str, shown: &[String], mut expected: Vec<String>) -> Result<(), String> {
    expected.sort_unstable();
    if shown == expected {
        return Ok(());
    }
    let count = |rows: &[String], row: &String| rows.iter().filter(|other| *other == row).count();
    let differs = |row: &&String| count(shown, row) != count(&expected, row);
    let differing: BTreeSet<&String> = shown.iter().chain(&expected).filter(differs).collect();
    let all = differing.len();
    let told = differing
        .into_iter()
        .take(5)
        .map(|row| format!("'{row}' is there {} times, expected {}", count(shown, row), count(&expected, row)));
    Err(format!("sink '{sink}': {all} rows differ: {}", told.collect::<Vec<_>>().join("; ")))
}

/// The record that a dead letter holds: its raw bytes are in hexadecimal digits.
fn letter_id(letter: &str) -> Result<i64, String> {
    let raw = letter.split('|').nth(2).unwrap_or_default();
    let digits = (0..raw.len() / 2).filter_map(|at| u8::from_str_radix(&raw[2 * at..2 * at + 2], 16).ok());
    let text = String::from_utf8(digits.collect()).unwrap_or_default();
    let id = text.split("\"id\":").nth(1).and_then(|rest| rest.split([',', '}']).next()?.trim().parse().ok());
    id.ok_or_else(|| format!("a dead letter without an id: {letter}"))
}

/// Counts and sums by key and the end of a bucket.
fn naive(rows: &[&InputRow], late: &BTreeSet<i64>, end: fn(i64) -> i64) -> BTreeMap<(i64, String), (i64, i64)> {
    let mut buckets = BTreeMap::new();
    for row in rows.iter().filter(|row| !late.contains(&row.id)) {
        let (count, sum) = buckets.entry((end(row.time), row.key.clone())).or_insert((0, 0));
        *count += 1;
        *sum += row.value;
    }
    buckets
}

fn window_end(time: i64) -> i64 {
    (time.div_euclid(WINDOW_MILLIS) + 1) * WINDOW_MILLIS
}

/// The ids of late rows, each once.
fn late_ids(sink: &str, shown: &[String], column: usize) -> Result<BTreeSet<i64>, String> {
    let mut late = BTreeSet::new();
    for row in shown {
        let id = row.split('|').nth(column).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| format!("sink '{sink}': no id in '{row}'"))?;
        if !late.insert(id) {
            return Err(format!("sink '{sink}': row {id} is there twice"));
        }
    }
    Ok(late)
}

fn check_windows(scenario: &Scenario, world: &World, good: &[&InputRow]) -> Result<(), String> {
    let late = late_ids("late", &world.visible("late"), 0)?;
    check_late(scenario, world, &late, window_end)?;
    let expected = naive(good, &late, window_end)
        .into_iter()
        .map(|((end, key), (count, sum))| format!("{}|{}|{key}|{count}|{sum}", shown(end - WINDOW_MILLIS), shown(end)));
    same("windows", &world.visible("windows"), expected.collect())
}

/// A timestamp as Arrow shows it.
fn shown(millis: i64) -> String {
    let text = coulee_model::Timestamp(millis).to_string().replace(' ', "T");
    match text.strip_suffix(".000") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

fn check_buckets(scenario: &Scenario, world: &World, good: &[&InputRow]) -> Result<(), String> {
    let late = late_ids("bucket-late", &world.visible("bucket-late"), 1)?;
    check_late(scenario, world, &late, bucket_end)?;
    let expected = naive(good, &late, bucket_end).into_iter();
    let expected = expected.map(|((end, key), (count, sum))| format!("{key}|{end}|{count}|{sum}"));
    same("buckets", &world.visible("buckets"), expected.collect())
}

/// See the module.
fn check_late(scenario: &Scenario, world: &World, late: &BTreeSet<i64>, end: fn(i64) -> i64) -> Result<(), String> {
    for split in scenario.splits() {
        let places = world.behind(split);
        // By the place behind which it stands, and the key: the last window of a late row, and the first of another one.
        let mut ends: BTreeMap<(usize, &str), (i64, i64)> = BTreeMap::new();
        for (_, at, row) in scenario.rows().filter(|(of, _, row)| of.id == split.id && row.value != 0) {
            let stretch = places.range(..=at).count();
            let is_late = late.contains(&row.id);
            if is_late && stretch == 0 {
                let (id, at) = (row.id, row.time);
                return Err(format!(
                    "row {id} of '{}', of time {at}, was late; nothing can have run ahead of it",
                    split.id
                ));
            }
            let (last_late, first_on_time) = ends.entry((stretch, row.key.as_str())).or_insert((i64::MIN, i64::MAX));
            match is_late {
                true => *last_late = (*last_late).max(end(row.time)),
                false => *first_on_time = (*first_on_time).min(end(row.time)),
            }
        }
        let mixed = ends.into_iter().find(|(_, (last_late, first_on_time))| last_late >= first_on_time);
        if let Some(((_, key), (last_late, first_on_time))) = mixed {
            return Err(format!(
                "rows of '{}' with key {key}: one that ends at {last_late} was late, one that ends at {first_on_time} was not, and event time \
                 cannot have passed the split between them",
                split.id
            ));
        }
    }
    Ok(())
}

/// Every row of a key has a number, each once; timers told some of them, each once, and the last one in the end.
fn check_numbers(world: &World, good: &[&InputRow]) -> Result<(), String> {
    let mut of_key: BTreeMap<&str, i64> = BTreeMap::new();
    good.iter().for_each(|row| *of_key.entry(row.key.as_str()).or_insert(0) += 1);
    let shown = world.visible("numbers");
    let (by_timer, by_row): (Vec<String>, Vec<String>) = shown.into_iter().partition(|row| row.ends_with("|1"));
    let numbers = of_key.iter().flat_map(|(key, count)| (1..=*count).map(move |number| format!("{key}|{number}|0")));
    same("numbers", &by_row, numbers.collect())?;
    let twice = by_timer.windows(2).find(|pair| pair[0] == pair[1]);
    if let Some(pair) = twice {
        return Err(format!("sink 'numbers': a timer told '{}' twice", pair[0]));
    }
    let last = of_key.iter().map(|(key, count)| format!("{key}|{count}|1"));
    match last.into_iter().find(|row| !by_timer.contains(row)) {
        Some(missing) => Err(format!("sink 'numbers': no timer told '{missing}'")),
        None => Ok(()),
    }
}
