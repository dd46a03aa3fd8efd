//! Windows and slices, by hand and against the definition of a window.

use proptest::prelude::*;

use super::*;

fn hopping(size_millis: i64, slide_millis: i64, offset: i64) -> Windows {
    Windows::new(WindowKind::Hopping { size_millis, slide_millis }, offset).unwrap()
}

fn cumulating(max_size_millis: i64, step_millis: i64, offset: i64) -> Windows {
    Windows::new(WindowKind::Cumulating { max_size_millis, step_millis }, offset).unwrap()
}

fn ends(windows: &Windows, slice: i64) -> Vec<i64> {
    let Some(WindowEnds { first, last, step }) = windows.ends_of(slice) else { return Vec::new() };
    (first..=last).step_by(step as usize).collect()
}

#[test]
fn a_hopping_window_is_its_slices() {
    let windows = hopping(30, 10, 0);
    let slices = [-11, -10, -1, 0, 9, 10].map(|time| windows.slice_of(time).unwrap());
    assert_eq!(slices, [-10, 0, 0, 10, 10, 20]);
    assert_eq!(ends(&windows, 10), [10, 20, 30]);
    assert_eq!([10, 20, 30].map(|end| windows.start_of(end)), [-20, -10, 0]);
    assert_eq!([8, 9, 18, 19, 28].map(|w| windows.next_end(10, Timestamp(w)).unwrap()), [10, 20, 20, 30, 30]);
    assert_eq!(windows.next_end(10, Timestamp(29)), None);
    assert_eq!(windows.last_end(10), 30);
    assert_eq!(
        windows.entered_slice(10, Timestamp(15)),
        10,
        "the windows that end at 20 and at 30 differ in other slices"
    );
}

#[test]
fn a_size_that_is_no_multiple_of_the_slide_has_shorter_slices() {
    // Windows begin at 0, 10, 20 and end at 25, 35, 45.
    let windows = hopping(25, 10, 0);
    assert_eq!(windows.slice_millis(), 5);
    assert_eq!((windows.slice_of(4), windows.slice_of(5)), (Some(5), Some(10)));
    assert_eq!(ends(&windows, 5), [5, 15, 25]);
    assert_eq!(ends(&windows, 10), [15, 25]);
    assert_eq!(windows.next_end(10, Timestamp(14)), Some(25));
    // Windows begin at 3, 13, …
    assert_eq!(ends(&hopping(25, 10, -7), 8), [8, 18, 28]);
    assert_eq!(hopping(25, 10, -7), hopping(25, 10, 3));
}

#[test]
fn cumulating_windows_begin_together() {
    let windows = cumulating(30, 10, 5);
    assert_eq!([-25, 4, 5, 34].map(|time| windows.slice_of(time).unwrap()), [-15, 5, 15, 35]);
    assert_eq!(ends(&windows, 15), [15, 25, 35]);
    assert_eq!(ends(&windows, 25), [25, 35]);
    assert_eq!(ends(&windows, 35), [35]);
    assert_eq!([5, 15, 25, 35, 45].map(|end| windows.start_of(end)), [-25, 5, 5, 5, 35]);
    let entered = [13, 14, 23, 24, 33].map(|w| windows.entered_slice(15, Timestamp(w)));
    assert_eq!(entered, [15, 25, 25, 35, 35]);
    assert_eq!(windows.next_end(15, Timestamp(34)), None);
}

#[test]
fn windows_beyond_the_range_of_instants_do_not_exist() {
    let hopping = hopping(30, 10, 0);
    // i64::MAX ends in 807 and i64::MIN in -808.
    assert_eq!(hopping.slice_of(i64::MAX), None);
    assert_eq!(ends(&hopping, i64::MAX - 7), [i64::MAX - 7]);
    assert_eq!(ends(&hopping, i64::MAX - 17), [i64::MAX - 17, i64::MAX - 7]);
    assert_eq!(hopping.slice_of(i64::MIN), None);
    assert_eq!(hopping.slice_of(i64::MIN + 8), Some(i64::MIN + 18));
    assert_eq!(ends(&hopping, i64::MIN + 18), [i64::MIN + 38]);
    assert_eq!(hopping.start_of(i64::MIN + 38), i64::MIN + 8);
    let cumulating = cumulating(30, 10, 0);
    for time in [i64::MIN, i64::MIN + 8, i64::MAX - 8, i64::MAX] {
        for end in cumulating.slice_of(time).map_or_else(Vec::new, |slice| ends(&cumulating, slice)) {
            assert!((cumulating.start_of(end)..end).contains(&time), "{time} in the window that ends at {end}");
        }
    }
    assert_eq!(hopping.next_end(i64::MAX - 17, Timestamp::MAX), None);
    assert_eq!(hopping.next_end(i64::MAX - 17, Timestamp::MIN), Some(i64::MAX - 17));
}

#[test]
fn a_refusal_says_what_was_wanted() {
    let refused = |kind| Windows::new(kind, 0).unwrap_err().to_string();
    let hopping = |size_millis, slide_millis| refused(WindowKind::Hopping { size_millis, slide_millis });
    assert!(hopping(0, 10).contains("hopping 0 ms every 10 ms: the size and the slide"), "{}", hopping(0, 10));
    assert!(hopping(10, -1).contains("must be more than 0 ms"));
    assert!(hopping(10, 11).contains("longer than the size"));
    let cumulating = |max_size_millis, step_millis| refused(WindowKind::Cumulating { max_size_millis, step_millis });
    assert!(cumulating(10, 0).contains("must be more than 0 ms"));
    assert!(cumulating(25, 10).contains("cumulating up to 25 ms by 10 ms: the largest size"));
    assert!(refused(WindowKind::Tumbling { size_millis: 0 }).contains("expected more than 0"));
}

#[test]
fn windows_are_told_as_flink_calls_them() {
    const MINUTE: i64 = 60_000;
    assert_eq!(hopping(60 * MINUTE, 10 * MINUTE, 0).called_with("t.at"), "HOP(t.at, 10 min, 1 h)");
    let cumulating = cumulating(1_440 * MINUTE, 60 * MINUTE, 5 * MINUTE);
    assert_eq!(cumulating.called_with("t.at"), "CUMULATE(t.at, 1 h, 1 d, offset 5 min)");
    assert_eq!(Windows::from(Tumbling::new(MINUTE, 0).unwrap()).called_with("t.at"), "TUMBLE(t.at, 1 min)");
}

/// Any windows of small spans.
fn any_windows() -> impl Strategy<Value = Windows> {
    let tumbling = (1i64..20).prop_map(|size_millis| WindowKind::Tumbling { size_millis });
    let hopping = (1i64..20, 0i64..30)
        .prop_map(|(slide_millis, more)| WindowKind::Hopping { size_millis: slide_millis + more, slide_millis });
    let cumulating = (1i64..10, 1i64..6)
        .prop_map(|(step_millis, steps)| WindowKind::Cumulating { max_size_millis: steps * step_millis, step_millis });
    (prop_oneof![tumbling, hopping, cumulating], -50i64..50)
        .prop_map(|(kind, offset)| Windows::new(kind, offset).unwrap())
}

/// The windows `[start, end)` that hold an instant, by the definition of their kind, in the order of their ends.
fn by_definition(windows: &Windows, time: i64) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for n in -400..400 {
        match windows.kind() {
            WindowKind::Tumbling { size_millis: size } => {
                let start = windows.offset_millis() + n * size;
                all.push((start, start + size));
            }
            WindowKind::Hopping { size_millis, slide_millis } => {
                let start = windows.offset_millis() + n * slide_millis;
                all.push((start, start + size_millis));
            }
            WindowKind::Cumulating { max_size_millis, step_millis } => {
                let start = windows.offset_millis() + n * max_size_millis;
                all.extend((1..=max_size_millis / step_millis).map(|steps| (start, start + steps * step_millis)));
            }
        }
    }
    all.retain(|(start, end)| (*start..*end).contains(&time));
    all.sort_by_key(|(_, end)| *end);
    all
}

proptest! {
    #[test]
    fn the_windows_of_an_instant_are_those_of_its_slice(windows in any_windows(), time in -300i64..300, ahead in -30i64..60) {
        let expected = by_definition(&windows, time);
        let slice = windows.slice_of(time).unwrap();
        prop_assert!((slice - windows.slice_millis()..slice).contains(&time));
        let found: Vec<(i64, i64)> = ends(&windows, slice).iter().map(|end| (windows.start_of(*end), *end)).collect();
        prop_assert_eq!(&found, &expected);
        // Whole slices: the window's slices are those with an end above its start and at most its own.
        prop_assert!(found.iter().all(|(start, end)| *start < slice && slice <= *end));
        let watermark = Timestamp(time + ahead);
        let open: Vec<(i64, i64)> = expected.into_iter().filter(|(_, end)| end - 1 > watermark.0).collect();
        prop_assert_eq!(windows.next_end(slice, watermark), open.first().map(|(_, end)| *end));
        // Entering another slice must not change the open windows of a row.
        let entered = windows.entered_slice(slice, watermark);
        if !open.is_empty() {
            let others: Vec<i64> = ends(&windows, entered).into_iter().filter(|end| end - 1 > watermark.0).collect();
            prop_assert_eq!(others, open.iter().map(|(_, end)| *end).collect::<Vec<_>>());
        }
    }
}

#[test]
fn slices_have_numbers_in_a_row() {
    for windows in [hopping(25, 10, 4), hopping(30, 1, 17), cumulating(30, 10, -7)] {
        for time in -50..50 {
            let slice = windows.slice_of(time).unwrap();
            let number = windows.number_of(slice);
            assert_eq!(windows.with_number(i128::from(number)), slice);
            assert_eq!(windows.number_of(slice + windows.slice_millis()), number + 1);
        }
    }
    let windows = hopping(20, 1, 3);
    assert_eq!(
        [i64::MIN, i64::MAX].map(|end| windows.with_number(i128::from(windows.number_of(end)))),
        [i64::MIN, i64::MAX]
    );
    assert_eq!(windows.with_number(i128::MAX / 4), i64::MAX);
    assert_eq!((hopping(25, 10, 0).overlapping_slices(), hopping(10, 10, 0).overlapping_slices()), (5, 0));
}
