//! Adapters: each dialect's decoding of an answer, from bytes to the pieces that listeners hear, and its encoding of a
//! conversation.

use weir::config::Dialect;
use weir::event::Event;
use weir::providers::answer::AnswerDecoder;
use weir::providers::{Piece, registry};

use crate::Case;
use crate::answers::{CHUNKS, body, request};

/// Messages of the conversation that is encoded.
const MESSAGES: usize = 50;

pub(crate) fn cases() -> Vec<Case> {
    let spoken = Dialect::ALL.iter().copied().filter(|dialect| *dialect != Dialect::Demo);
    spoken.flat_map(|dialect| [decode(dialect), encode(dialect)]).collect()
}

fn decode(dialect: Dialect) -> Case {
    let (adapter, reads) = (registry::adapter(dialect), body(dialect));
    Case::new(format!("decode/{}", dialect.as_str()), CHUNKS, move || {
        let mut decoder = AnswerDecoder::new(&*adapter);
        let mut pieces = 0;
        let mut count = |piece: Piece<'_>| pieces += usize::from(matches!(piece, Piece::Event(Event::Delta { .. })));
        for read in &reads {
            decoder.push(read, &mut count).expect("the mock's answers are good");
        }
        decoder.end(&mut count).expect("the mock's answers are whole");
        assert_eq!(pieces, CHUNKS, "{dialect:?}");
    })
}

fn encode(dialect: Dialect) -> Case {
    let (adapter, request) = (registry::adapter(dialect), request(MESSAGES));
    Case::new(format!("encode/{}", dialect.as_str()), MESSAGES, move || {
        let call = adapter.encode(&request).expect("every dialect has words for text");
        assert!(call.body.len() > MESSAGES);
    })
}
