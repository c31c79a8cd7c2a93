//! Frames: from the bytes of an answer to its frames.

use weir::config::Dialect;
use weir::providers::frames::{FRAME_LEN_MAX, Framer};
use weir::providers::{Flow, Framing};

use crate::Case;
use crate::answers::{CHUNKS, body};

/// What a read brings at most when a connection has fallen behind.
const READ_LEN: usize = 16 * 1024;
/// Reads that end in the middle of lines.
const CUT_LEN: usize = 100;

pub(crate) fn cases() -> Vec<Case> {
    let pieces = body(Dialect::OpenaiChat);
    let whole = pieces.concat();
    let cut = |len: usize| whole.chunks(len).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let lines: Vec<_> = body(Dialect::Ollama).iter().map(|piece| piece.to_vec()).collect();
    vec![
        case("one_a_read", Framing::Sse, pieces.iter().map(|piece| piece.to_vec()).collect()),
        case("many_a_read", Framing::Sse, cut(READ_LEN)),
        case("cut_anywhere", Framing::Sse, cut(CUT_LEN)),
        case("lines", Framing::NdJson, lines),
    ]
}

fn case(name: &str, framing: Framing, reads: Vec<Vec<u8>>) -> Case {
    Case::new(format!("frames/{name}"), CHUNKS, move || {
        let mut framer = Framer::new(framing, FRAME_LEN_MAX);
        let mut found = 0;
        let mut count = |_: weir::providers::frames::Unit<'_>| {
            found += 1;
            Ok(Flow::More)
        };
        for read in &reads {
            framer.push(read, &mut count).expect("the mock's frames are good");
        }
        assert!(found >= CHUNKS, "{found} frames");
    })
}
