//! Bytes as frames: the same ones however they are cut into reads, and none longer than allowed.

use weir::providers::frames::{FRAME_LEN_MAX, Framer, Unit};
use weir::providers::{Flow, Framing};

/// Cuts `bytes` in both framings.
pub fn check(bytes: &[u8]) {
    for framing in [Framing::Sse, Framing::NdJson] {
        for len_max in [16, 100, FRAME_LEN_MAX] {
            let [whole, cut @ ..] = super::cuts(bytes).map(|reads| units(framing, len_max, &reads));
            for cut in cut {
                assert_eq!(whole, cut, "{framing:?}, at most {len_max}");
            }
        }
    }
}

/// What the framer finds, and last how it ended.
fn units(framing: Framing, len_max: usize, reads: &[&[u8]]) -> Vec<String> {
    let mut framer = Framer::new(framing, len_max);
    let mut found = Vec::new();
    let mut sink = |unit: Unit<'_>| {
        if let Unit::Frame(frame) = unit {
            // Invalid bytes become one character each; the last line's end may stand at the limit.
            assert!(frame.data.chars().count() <= len_max + 1, "{frame:?}");
        }
        found.push(format!("{unit:?}"));
        Ok(Flow::More)
    };
    let pushed = reads.iter().try_for_each(|read| framer.push(read, &mut sink).map(drop));
    let ended = pushed.and_then(|()| framer.end(&mut sink));
    found.push(format!("{ended:?}"));
    found
}
