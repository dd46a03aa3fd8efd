//! Which windows an operator has, and the slices that they share.
//!
//! A *slice* is a span of event time that no bound of a window divides, so that every window is a whole number of slices (Flink's `SliceAssigners`; "general
//! stream slicing"). A row enters one slice, however many windows hold it. A slice is named by its end, exclusive.
//!
//! ```text
//! hopping, 30 ms every 10 ms     slices  |  1  |  2  |  3  |  4  |      a window is 3 slices, a slice is in 3 windows
//!                                windows [-----------------)
//!                                              [-----------------)
//! cumulating, up to 30 ms by 10  slices  |  1  |  2  |  3  |  4  |      windows begin together, until the largest is full
//!                                windows [-----)
//!                                        [-----------)
//!                                        [-----------------)
//!                                                          [-----)
//! ```
//!
//! Instants and spans are milliseconds. A window whose start or end is beyond the range of `i64` does not exist.

use std::fmt;

use coulee_model::Timestamp;
use datafusion_expr::Expr;

use super::assign::{Bound, Tumbling};
use crate::state::span;
use crate::{Error, Result};

/// How the windows of an operator follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// Without gap and overlap.
    Tumbling {
        /// How long a window is.
        size_millis: i64,
    },
    /// One begins at every multiple of the slide: Flink's `HOP`. Flink wants a size that is a multiple of the slide; here any size from the slide on will do.
    Hopping {
        /// How long a window is.
        size_millis: i64,
        /// From the start of a window to the start of the next one.
        slide_millis: i64,
    },
    /// Windows of one step, two steps and so on that begin together, until the next ones begin at the end of the largest: Flink's `CUMULATE`.
    Cumulating {
        /// How long the largest window is: a multiple of the step.
        max_size_millis: i64,
        /// How much longer the next window is.
        step_millis: i64,
    },
}

/// The windows of an operator: a valid kind, shifted by an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Windows {
    kind: WindowKind,
    /// Below the distance of two windows' starts, not negative.
    offset_millis: i64,
}

/// The ends of the windows that hold a slice: `first`, `first + step`, … `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowEnds {
    /// The end of the window that is over first.
    pub first: i64,
    /// The end of the window that is over last, `first` when there is one window.
    pub last: i64,
    /// From one end to the next.
    pub step: i64,
}

impl From<Tumbling> for Windows {
    fn from(window: Tumbling) -> Self {
        let kind = WindowKind::Tumbling { size_millis: window.size_millis() };
        Windows { kind, offset_millis: window.offset_millis() }
    }
}

impl Windows {
    /// Windows of this kind that are shifted by `offset_millis`: some window starts there.
    ///
    /// # Errors
    /// `Invalid` when a span is not above 0, a slide is longer than the size, or the largest of cumulating windows is no multiple of their step.
    pub fn new(kind: WindowKind, offset_millis: i64) -> Result<Self> {
        let refused = |why: &str| Err(Error::invalid(format!("{kind}: {why}")));
        match kind {
            WindowKind::Tumbling { size_millis } => {
                Tumbling::new(size_millis, offset_millis)?;
            }
            WindowKind::Hopping { size_millis, slide_millis } => {
                if size_millis <= 0 || slide_millis <= 0 {
                    return refused("the size and the slide of hopping windows must be more than 0 ms");
                }
                if slide_millis > size_millis {
                    return refused("a slide that is longer than the size would leave rows between two windows");
                }
            }
            WindowKind::Cumulating { max_size_millis, step_millis } => {
                if max_size_millis <= 0 || step_millis <= 0 {
                    return refused("the largest size and the step of cumulating windows must be more than 0 ms");
                }
                if max_size_millis % step_millis != 0 {
                    return refused("the largest size of cumulating windows must be a multiple of the step");
                }
            }
        }
        Ok(Windows { kind, offset_millis: offset_millis.rem_euclid(kind.period_millis()) })
    }

    /// How they follow each other.
    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// By how much they are shifted: at least 0, and less than from one start to the next.
    pub fn offset_millis(&self) -> i64 {
        self.offset_millis
    }

    /// Windows without overlap whose ends are the ends of these: for results that carry the end of their window.
    pub fn by_end(&self) -> Tumbling {
        let (step, first_end) = match self.kind {
            WindowKind::Tumbling { size_millis } => (size_millis, 0),
            WindowKind::Hopping { size_millis, slide_millis } => (slide_millis, size_millis),
            WindowKind::Cumulating { step_millis, .. } => (step_millis, 0),
        };
        Tumbling::valid(step, self.offset_millis.wrapping_add(first_end))
    }

    /// How long a slice is.
    pub fn slice_millis(&self) -> i64 {
        match self.kind {
            WindowKind::Tumbling { size_millis } => size_millis,
            WindowKind::Hopping { size_millis, slide_millis } => greatest_common_divisor(size_millis, slide_millis),
            WindowKind::Cumulating { step_millis, .. } => step_millis,
        }
    }

    fn slices(&self) -> Tumbling {
        Tumbling::valid(self.slice_millis(), self.offset_millis)
    }

    /// The slice of a row: the end of the slice that holds `time`, a timestamp of any precision; null for null. Of tumbling windows, the window's end.
    pub fn slice_end(&self, time: Expr) -> Expr {
        self.slices().bound(Bound::End, time)
    }

    /// The slice that holds an instant; `None` when no window holds it.
    pub fn slice_of(&self, millis: i64) -> Option<i64> {
        let slice = self.slices().start(millis)?.checked_add(self.slice_millis())?;
        self.ends_of(slice).is_some().then_some(slice)
    }

    /// The windows that hold a slice; `None` when there is none, which is so only at the ends of the range of `i64`.
    pub fn ends_of(&self, slice: i64) -> Option<WindowEnds> {
        let (offset, slice_start) =
            (i128::from(self.offset_millis), i128::from(slice) - i128::from(self.slice_millis()));
        let (least, most, step) = match self.kind {
            WindowKind::Tumbling { .. } => return Some(WindowEnds { first: slice, last: slice, step: 1 }),
            WindowKind::Hopping { size_millis, slide_millis } => {
                let (size, slide) = (i128::from(size_millis), i128::from(slide_millis));
                let least = i128::from(slice).max(i128::from(i64::MIN) + size);
                let most = (slice_start + size).min(i128::from(i64::MAX));
                // Ends lie at the offset, a size and any number of slides.
                let least = least + (offset + size - least).rem_euclid(slide);
                (least, most - (most - offset - size).rem_euclid(slide), slide_millis)
            }
            WindowKind::Cumulating { max_size_millis, step_millis } => {
                let (max_size, step) = (i128::from(max_size_millis), i128::from(step_millis));
                let start = slice_start - (slice_start - offset).rem_euclid(max_size);
                if start < i128::from(i64::MIN) {
                    return None;
                }
                let most = (start + max_size).min(i128::from(i64::MAX));
                (i128::from(slice), most - (most - start).rem_euclid(step), step_millis)
            }
        };
        (least <= most).then_some(WindowEnds { first: least as i64, last: most as i64, step })
    }

    /// The end of the last window that holds a slice: the slice is needed no more once that window has fired.
    pub fn last_end(&self, slice: i64) -> i64 {
        self.ends_of(slice).map_or(slice, |ends| ends.last)
    }

    /// The end of the first window that holds a slice and that a watermark has not closed; `None` when it has closed all of them.
    pub fn next_end(&self, slice: i64, watermark: Timestamp) -> Option<i64> {
        let ends = self.ends_of(slice)?;
        if !is_over(ends.first, watermark) {
            return Some(ends.first);
        }
        // The watermark w closes the windows whose end is at most w + 1.
        let steps = (i128::from(watermark.0) + 1 - i128::from(ends.first)).div_euclid(i128::from(ends.step)) + 1;
        let next = i128::from(ends.first) + steps * i128::from(ends.step);
        (next <= i128::from(ends.last)).then_some(next as i64)
    }

    /// The slice that takes a row of `slice` once the watermark is here: another one than `slice` only where the row then is in the same open windows.
    pub fn entered_slice(&self, slice: i64, watermark: Timestamp) -> i64 {
        match self.kind {
            WindowKind::Tumbling { .. } | WindowKind::Hopping { .. } => slice,
            // The windows that are open hold all slices of those that are over.
            WindowKind::Cumulating { .. } => self.next_end(slice, watermark).unwrap_or(slice),
        }
    }

    /// Whether an open window that holds one slice of a window that is over holds all of them.
    pub(super) fn slices_can_fold(&self) -> bool {
        matches!(self.kind, WindowKind::Cumulating { .. })
    }

    /// How many slices a window has that other windows have as well; 0 where slices fold.
    pub(super) fn overlapping_slices(&self) -> i64 {
        match self.kind {
            WindowKind::Hopping { size_millis, slide_millis } if slide_millis < size_millis => {
                size_millis / self.slice_millis()
            }
            _ => 0,
        }
    }

    /// Slices in a row have numbers in a row.
    pub(super) fn number_of(&self, slice: i64) -> i64 {
        let (millis, offset) = self.slice_span();
        (i128::from(slice) - offset).div_euclid(millis) as i64
    }

    /// The slice with a number; the first or the last instant for one that is beyond the range of instants.
    pub(super) fn with_number(&self, number: i128) -> i64 {
        let (millis, offset) = self.slice_span();
        (number * millis + offset).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// How long a slice is, and by how much slices are shifted: less than that.
    fn slice_span(&self) -> (i128, i128) {
        let millis = self.slice_millis();
        (i128::from(millis), i128::from(self.offset_millis % millis))
    }

    /// The start, inclusive, of the window that ends at `end`. Its slices are those whose end is above that and at most `end`.
    pub fn start_of(&self, end: i64) -> i64 {
        match self.kind {
            WindowKind::Tumbling { size_millis } | WindowKind::Hopping { size_millis, .. } => end - size_millis,
            WindowKind::Cumulating { max_size_millis, .. } => {
                // Both remainders are below the size, so that their difference is exact.
                let into = (end - 1).rem_euclid(max_size_millis) - self.offset_millis;
                end - 1 - into.rem_euclid(max_size_millis)
            }
        }
    }

    /// As Flink's table function of a time: `HOP(flights.departed_at, 10 min, 1 h)`.
    pub(crate) fn called_with(&self, time: &str) -> String {
        let offset = match self.offset_millis {
            0 => String::new(),
            millis => format!(", offset {}", span(millis.unsigned_abs())),
        };
        let span = |millis: i64| span(millis.unsigned_abs());
        match self.kind {
            WindowKind::Tumbling { size_millis } => format!("TUMBLE({time}, {}{offset})", span(size_millis)),
            WindowKind::Hopping { size_millis, slide_millis } => {
                format!("HOP({time}, {}, {}{offset})", span(slide_millis), span(size_millis))
            }
            WindowKind::Cumulating { max_size_millis, step_millis } => {
                format!("CUMULATE({time}, {}, {}{offset})", span(step_millis), span(max_size_millis))
            }
        }
    }
}

/// Whether no row of a window [start, end) can come any more: a watermark w promises that no later row has a time at or below w.
pub(super) fn is_over(end: i64, watermark: Timestamp) -> bool {
    end.saturating_sub(1) <= watermark.0
}

impl WindowKind {
    /// From the start of a window to the next start of another one.
    fn period_millis(self) -> i64 {
        match self {
            WindowKind::Tumbling { size_millis } => size_millis,
            WindowKind::Hopping { slide_millis, .. } => slide_millis,
            WindowKind::Cumulating { max_size_millis, .. } => max_size_millis,
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowKind::Tumbling { size_millis } => write!(f, "tumbling {size_millis} ms"),
            WindowKind::Hopping { size_millis, slide_millis } => {
                write!(f, "hopping {size_millis} ms every {slide_millis} ms")
            }
            WindowKind::Cumulating { max_size_millis, step_millis } => {
                write!(f, "cumulating up to {max_size_millis} ms by {step_millis} ms")
            }
        }
    }
}

/// Of two numbers above 0.
fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
