//! What must hold for any bytes. `tests/it/fuzz.rs` of weir runs the same checks without a fuzzer.

pub mod answer;
pub mod failure;
pub mod frames;

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
