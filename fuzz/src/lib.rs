//! What the fuzz targets share: how bytes are cut into reads, and how much memory reading them may take.

pub mod answer;

use std::alloc::System;

use cap::Cap;

/// What one input may take, in bytes, all of its readings and the notes about them together. Inputs are small; who
/// needs more than this for one has lost count of something.
const MEMORY_MAX: usize = 32 * 1024 * 1024;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// From here on the next input counts. Whoever exceeds its memory ends the process where he does.
pub fn begin() {
    let raised = MEMORY.set_limit(MEMORY.allocated() + MEMORY_MAX);
    raised.expect("the limit is above what is allocated");
}

/// The same bytes in the reads that a network may make of them: one, one for each byte, and some between, which depend
/// on the bytes alone so that a finding can be run again.
pub fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let mut dice = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| roll(hash ^ u64::from(*byte)));
    let mut rest = bytes;
    let mut between = Vec::new();
    while !rest.is_empty() {
        dice = roll(dice);
        let len = 1 + (dice >> 33) as usize % 24;
        let (read, after) = rest.split_at(len.min(rest.len()));
        between.push(read);
        rest = after;
    }
    [vec![bytes], bytes.chunks(1).collect(), between]
}

fn roll(state: u64) -> u64 {
    state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F)
}
