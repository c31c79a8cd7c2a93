//! Answers: what must hold for any bytes that a provider sends, in any dialect.
//!
//! However they are cut into reads, they tell the same and end the same, once. What they tell grows no faster than they
//! do, and clients can rely on it: no piece is empty, the pieces of a call add up to it, no source comes twice.

use std::collections::{BTreeMap, HashSet};

use serde::de::IgnoredAny;
use serde_json::json;
use weir::config::Dialect;
use weir::event::{Event, ToolCall};
use weir::providers::answer::AnswerDecoder;
use weir::providers::{Adapter, Flow, Piece, registry};

/// What each byte may tell, in bytes of JSON. The most is told by a small frame that changes a whole usage.
const TOLD_PER_BYTE_MAX: usize = 64;
/// What an answer may tell beyond that.
const TOLD_MAX: usize = 4 * 1024;

/// Reads `body` in every way, as an answer in `dialect`.
pub fn check(dialect: Dialect, body: &[u8]) {
    let adapter = registry::adapter(dialect);
    let [whole, cut @ ..] = super::cuts(body).map(|reads| read(&*adapter, &reads));
    let told: usize = whole.iter().map(String::len).sum();
    assert!(told <= TOLD_MAX + TOLD_PER_BYTE_MAX * body.len(), "{} bytes tell {told}", body.len());
    for cut in cut {
        assert_eq!(whole, cut, "other reads tell something else");
    }
}

/// What the reads tell, piece by piece, and last how it ended.
fn read(adapter: &dyn Adapter, reads: &[&[u8]]) -> Vec<String> {
    let mut decoder = AnswerDecoder::new(adapter);
    let mut listener = Listener::default();
    let mut flow = Ok(Flow::More);
    for bytes in reads {
        flow = decoder.push(bytes, &mut |piece| listener.piece(&piece));
        if flow != Ok(Flow::More) {
            break;
        }
    }
    match flow.and_then(|_| decoder.end(&mut |piece| listener.piece(&piece))) {
        Ok(()) => {
            listener.assert_complete();
            let finish = decoder.finish();
            listener.told.push(format!("{finish:?}"));
            // It has ended, whatever follows.
            let mut nothing = |piece: Piece<'_>| panic!("told after the end: {piece:?}");
            assert_eq!(decoder.push(b"data: {\"error\":{}}\n\n", &mut nothing), Ok(Flow::Ended));
            assert_eq!(decoder.end(&mut nothing), Ok(()));
            assert_eq!(decoder.finish(), finish);
        }
        Err(failure) => listener.told.push(format!("{failure:?}")),
    }
    listener.told
}

/// One client, who believes what the protocol promises.
#[derive(Default)]
struct Listener {
    told: Vec<String>,
    /// The arguments of each call so far.
    calls: BTreeMap<u32, String>,
    complete: HashSet<u32>,
    urls: HashSet<String>,
    numbers: HashSet<u32>,
}

impl Listener {
    fn piece(&mut self, piece: &Piece<'_>) {
        let told = match piece {
            Piece::Event(event) => {
                self.event(event);
                json!(event)
            }
            Piece::Model(name) | Piece::UpstreamId(name) => {
                assert!(!name.is_empty(), "{piece:?}");
                json!(name)
            }
            Piece::Opaque(value) => json!({"opaque": value}),
        };
        self.told.push(told.to_string());
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Delta { delta } | Event::Reasoning { delta, .. } | Event::Refusal { delta } => {
                assert!(!delta.is_empty(), "an empty piece: {event:?}");
            }
            Event::ToolCallPiece { index, arguments_delta, .. } => {
                assert!(!self.complete.contains(index), "more of a call that is complete: {event:?}");
                self.calls.entry(*index).or_default().push_str(arguments_delta);
            }
            Event::ToolCall { call, complete, valid } => {
                let ToolCall { index, arguments, .. } = call;
                assert!(complete, "{event:?}");
                assert_eq!(self.calls.get(index), Some(arguments), "the pieces of a call are not the call");
                assert!(!valid || serde_json::from_str::<IgnoredAny>(arguments).is_ok(), "not valid: {event:?}");
                assert!(self.complete.insert(*index), "complete twice: {event:?}");
            }
            Event::Citation { items } => {
                assert!(!items.is_empty(), "no sources");
                for item in items {
                    let is_new = self.urls.insert(item.url.clone()) && self.numbers.insert(item.n);
                    assert!(is_new, "a source or a number twice: {item:?}");
                }
            }
            Event::Reset { .. } => {
                self.calls.clear();
                self.complete.clear();
                self.urls.clear();
                self.numbers.clear();
            }
            Event::Activity { .. } | Event::Usage { .. } | Event::Ext { .. } => {}
        }
    }

    fn assert_complete(&self) {
        assert_eq!(self.calls.len(), self.complete.len(), "a call has no end");
        assert!((0..).zip(self.calls.keys()).all(|(number, index)| number == *index), "a number is left out");
    }
}
