//! Where text goes: data to the standard output, notes to the standard error, and a block at the bottom of the terminal that is
//! redrawn in place.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::failure::Failure;

/// How many lines of the block are on the terminal now. Whatever else is printed must take it away first.
static DRAWN: Mutex<usize> = Mutex::new(0);

/// Whether notes are read by a person.
pub fn is_live() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes data.
///
/// # Errors
/// [`Failure::Closed`] when nobody reads it any more.
pub fn data(bytes: &[u8]) -> Result<(), Failure> {
    write_data(bytes).map_err(|error| Failure::io("cannot write to the standard output", &error))
}

/// The same, for those who decide themselves what an error means.
pub fn write_data(bytes: &[u8]) -> io::Result<()> {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    erase(&mut drawn)?;
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line for people.
///
/// # Errors
/// [`Failure::Closed`] when nobody reads it any more.
pub fn note(line: &str) -> Result<(), Failure> {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    erase(&mut drawn)
        .and_then(|()| writeln!(io::stderr().lock(), "{line}"))
        .map_err(|error| Failure::io("cannot write to the standard error", &error))
}

/// Draws the block anew.
///
/// # Errors
/// [`Failure::Closed`] when nobody sees it any more.
pub fn draw(lines: &[String]) -> Result<(), Failure> {
    let mut drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = erasure(*drawn);
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    *drawn = lines.len();
    let mut out = io::stderr().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::io("cannot write to the standard error", &error))
}

fn erase(drawn: &mut usize) -> io::Result<()> {
    let lines = std::mem::take(drawn);
    if lines == 0 {
        return Ok(());
    }
    let mut out = io::stderr().lock();
    out.write_all(erasure(lines).as_bytes())?;
    out.flush()
}

/// Moves to the first line of the block and clears from there to the end of the screen.
fn erasure(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}F\x1b[J") }
}
