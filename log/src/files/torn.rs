//! What a power loss leaves of a write that was not synced, told apart from damage.
//!
//! A file system may make a file longer before it has written the bytes, and writes sectors in any order. So a write of
//! several batches may leave an early batch out while a later one is whole. The sectors that are missing read as zeros,
//! since appends go to places that held nothing before. Damage to bytes that were written and synced changes them; it does
//! not turn a whole sector into zeros.

/// The least that a disk writes at once.
const SECTOR_BYTES: u64 = 512;

/// The end of the sector in which `position` lies. The first bytes of a sound batch may be zeros, so that the batch seems
/// to begin in a sector that was lost.
pub(crate) fn sector_end(position: u64) -> u64 {
    (position / SECTOR_BYTES + 1) * SECTOR_BYTES
}

/// Whether a sector of `bytes` was never written. `bytes` begin at position `from` of a file, where a batch or record should
/// have begun that is not sound, and end with the sector in which a sound one begins. `shows` says whether the first so
/// many bytes of the one that should have begun cannot all be zeros.
pub(crate) fn has_unwritten_sector(bytes: &[u8], from: u64, shows: impl Fn(usize) -> bool) -> bool {
    let mut start = 0;
    while start < bytes.len() {
        let at = from + start as u64;
        let in_sector = (sector_end(at) - at) as usize;
        let Some(part) = bytes.get(start..start + in_sector) else { return false };
        if part.iter().all(|byte| *byte == 0) && (start > 0 || shows(in_sector)) {
            return true;
        }
        start += in_sector;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_sectors_of_zeros_were_never_written() {
        let written = |zeros: std::ops::Range<usize>, from: u64, length: usize| {
            let mut bytes = vec![7; length];
            bytes[zeros].fill(0);
            has_unwritten_sector(&bytes, from, |first| first >= 8)
        };
        assert!(written(0..512, 1024, 600));
        assert!(written(412..924, 100, 1000), "the second sector begins at byte 412");
        assert!(!written(413..924, 100, 1000), "a byte of it is there");
        assert!(!written(412..923, 100, 923), "the file ends within it");
        assert!(written(0..8, 504, 600) && !written(0..7, 505, 600), "too little of the first shows nothing");
        assert!(!written(0..0, 0, 2000));
    }
}
