//! A thread with a large stack for parsing and planning, which walk trees recursively; a panic there becomes an error.
//!
//! How deep those trees may be is bounded by `limits`; the stack holds the deepest tree that passes.

use std::any::Any;

use coulee_model::ErrorKind;

use crate::error::{Fault, Result};

/// Reserved, not used: the system gives memory to the pages that are touched.
const STACK_BYTES: usize = 512 << 20;

/// Runs `work` on a thread of its own and waits for it.
///
/// # Errors
/// What `work` returns; `Internal` when it panics (with the panic's words) or when the system gives no thread.
pub(crate) fn with_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let internal = |message: String| Fault { kind: ErrorKind::Internal, ..Fault::new(message) };
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("coulee-planner".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).map_err(|error| {
            let message = format!("cannot start a thread to plan the statement: {error}");
            Fault { kind: ErrorKind::Unavailable, ..Fault::new(message) }
        })?;
        thread.join().unwrap_or_else(|panic| {
            let message = format!("planning this statement failed: {}", words(panic.as_ref()));
            Err(internal(message).help("this is a fault of Coulee: please report it with the statement"))
        })
    })
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let index = [0_usize; 1];
        let fault = with_large_stack(|| Ok(index[index.len()])).expect_err("a panic");
        assert_eq!(fault.kind, ErrorKind::Internal);
        assert!(fault.message.contains("the len is 1 but the index is 1"), "{}", fault.message);
    }

    #[test]
    fn recursion_has_room() {
        fn depth(levels: u64) -> u64 {
            let frame = std::hint::black_box([levels; 128]);
            if levels == 0 { 0 } else { 1 + depth(frame[0] - 1) }
        }
        // 100,000 frames of a kilobyte: more than any thread has by default.
        assert_eq!(with_large_stack(|| Ok(depth(100_000))).map_err(|fault| fault.message), Ok(100_000));
    }
}
