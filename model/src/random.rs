//! The one source of randomness: for names that must differ between processes and lives, never for what a program decides.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 bits that no other call, in no other process, is likely to have given. Not for secrets.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that draws; the standard library seeds it from the system"
)]
pub fn unique_u64() -> u64 {
    // Each state has keys of its own, and the first of a thread are from the system.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn numbers_differ() {
        let numbers: BTreeSet<u64> = (0..1_000).map(|_| super::unique_u64()).collect();
        assert_eq!(numbers.len(), 1_000);
    }
}
