//! What crosses crates. The tests with the real binary and real clients are in `python/`; here are those of the workspace itself.

#[cfg(test)]
mod rooms;
