//! Answer: decodes one whole answer, from the bytes of the body to pieces, in any dialect.
//!
//! Joins a [`Framer`] and a dialect's [`Decode`], and catches what is no event stream at all: a JSON document where
//! frames were expected (an error behind a 200, or an answer that was not streamed), an HTML page, nothing.

use serde_json::Value;

use super::frames::{FRAME_LEN_MAX, Framer, Unit};
use super::{Decode, Flow, Frame, Framing, Piece, bounds, json};
use crate::event::{Event, Finish};
use crate::failure::{Code, Failure};

/// What the last read consisted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// Less than one line.
    Nothing,
    /// Comments alone: the provider lives, but has said nothing.
    Comments,
    /// At least one frame.
    Frames,
}

/// Decodes one answer.
pub struct AnswerDecoder {
    framer: Framer,
    listener: Listener,
    ended: bool,
}

impl AnswerDecoder {
    /// A decoder for a new answer in `adapter`'s dialect.
    pub fn new(adapter: &dyn super::Adapter) -> Self {
        Self::with_parts(adapter.framing(), adapter.decoder(), FRAME_LEN_MAX)
    }

    /// A decoder of given parts, with the longest frame that it accepts.
    pub fn with_parts(framing: Framing, decode: Box<dyn Decode>, frame_len_max: usize) -> Self {
        let (bare, heard) = (Bare::default(), Heard::Nothing);
        let listener = Listener { decode, bare, heard, frames: 0, documents: 0, foreign: false };
        Self { framer: Framer::new(framing, frame_len_max), listener, ended: false }
    }

    /// Takes the next bytes of the body; pieces go to `out` in order. After [`Flow::Ended`] everything is ignored.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure> {
        self.listener.heard = Heard::Nothing;
        if self.ended {
            return Ok(Flow::Ended);
        }
        let out = &mut |piece: Piece<'_>| out(bounds::piece(piece));
        let listener = &mut self.listener;
        let flow = self.framer.push(bytes, &mut |unit| listener.unit(unit, out))?;
        self.ended = flow == Flow::Ended;
        Ok(flow)
    }

    /// Takes the end of the body. `Err` when the answer is not whole.
    pub fn end(&mut self, out: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        let out = &mut |piece: Piece<'_>| out(bounds::piece(piece));
        let listener = &mut self.listener;
        let flow = self.framer.end(&mut |unit| listener.unit(unit, out));
        let flow = flow.map_err(|failure| match failure.code {
            // The last frame had no end of its own: it is not malformed, it is cut.
            Code::UpstreamProtocol if !listener.foreign => truncated(),
            _ => failure,
        })?;
        self.ended = true;
        if flow == Flow::Ended { Ok(()) } else { self.listener.end(out) }
    }

    /// Takes that the body was cut: of what is held back up to its end, what the answer has cost so far is told.
    pub fn abandon(&mut self, out: &mut dyn FnMut(Piece<'_>)) {
        let mut costs = |piece: Piece<'_>| {
            if matches!(piece, Piece::Event(Event::Usage { .. })) {
                out(piece);
            }
        };
        // Why it failed is known already.
        let _ = self.end(&mut costs);
    }

    /// How the answer ended; asked after [`Flow::Ended`] or a successful [`AnswerDecoder::end`].
    pub fn finish(&self) -> Finish {
        bounds::finish(self.listener.decode.finish())
    }

    /// What the last [`AnswerDecoder::push`] has brought: comments keep an answer alive, frames move it on.
    pub fn heard(&self) -> Heard {
        self.listener.heard
    }
}

/// The failure of an answer that stops before its terminator.
pub fn truncated() -> Failure {
    Failure::new(Code::UpstreamTruncated, "the provider's answer ended before it was complete")
}

struct Listener {
    decode: Box<dyn Decode>,
    bare: Bare,
    heard: Heard,
    frames: u64,
    documents: u64,
    /// The first frame did not even begin like JSON.
    foreign: bool,
}

impl Listener {
    fn unit(&mut self, unit: Unit<'_>, out: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure> {
        match unit {
            Unit::Comment => {
                self.heard = self.heard.max(Heard::Comments);
                Ok(Flow::More)
            }
            Unit::Frame(frame) => {
                self.heard = Heard::Frames;
                self.frames += 1;
                self.foreign |= self.frames == 1 && !frame.data.trim_start().starts_with(['{', '[']);
                self.decode.frame(&frame, out)
            }
            Unit::Stray(line) => {
                self.heard = Heard::Frames;
                match self.bare.line(line)? {
                    Some(document) => self.document(&document, out),
                    None => Ok(Flow::More),
                }
            }
        }
    }

    /// Takes a JSON document without a frame around it. Some servers wrap it in an array.
    fn document(&mut self, document: &str, out: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure> {
        self.documents += 1;
        // Only an array is read here: what is large should not be read twice.
        let array = document.trim_start().starts_with('[').then(|| json::parse(document));
        if let Some(Ok(Value::Array(items))) = array {
            for item in items {
                let data = item.to_string();
                if self.decode.frame(&Frame { event: None, data: &data }, out)? == Flow::Ended {
                    return Ok(Flow::Ended);
                }
            }
            return Ok(Flow::More);
        }
        self.decode.frame(&Frame { event: None, data: document }, out)
    }

    fn end(&mut self, out: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        let ended = self.decode.end(out);
        if ended.is_ok() || self.frames > 0 {
            return ended;
        }
        let message = if self.documents > 0 {
            "the provider sent a document that is no answer"
        } else if self.bare.noise {
            "the provider sent something that is no event stream"
        } else {
            "the provider's answer is empty"
        };
        Err(Failure::new(Code::UpstreamProtocol, message))
    }
}

/// Collects the lines of a JSON document that stands in an event stream without `data:`.
#[derive(Debug, Default)]
struct Bare {
    text: String,
    nesting: json::Nesting,
    /// There were lines that belong to no document.
    noise: bool,
}

impl Bare {
    /// Takes one line; gives the document when the line completes it.
    fn line(&mut self, line: &str) -> Result<Option<String>, Failure> {
        if self.text.is_empty() && !line.trim_start().starts_with(['{', '[']) {
            self.noise = true;
            return Ok(None);
        }
        if self.text.len() + line.len() >= FRAME_LEN_MAX {
            let message = format!("a document in the provider's answer exceeds {FRAME_LEN_MAX} bytes");
            return Err(Failure::new(Code::UpstreamProtocol, message));
        }
        self.text.push_str(line);
        self.text.push('\n');
        self.nesting.push(line);
        Ok(self.nesting.is_closed().then(|| std::mem::take(self).text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dialect;
    use crate::providers::registry;

    /// The text, or the code of the failure, of an answer that comes in one read.
    fn answer(body: &str) -> Result<String, Code> {
        answer_in(Dialect::OpenaiChat, body)
    }

    fn answer_in(dialect: Dialect, body: &str) -> Result<String, Code> {
        let adapter = registry::adapter(dialect);
        let mut decoder = AnswerDecoder::new(&*adapter);
        let mut text = String::new();
        let mut out = |piece: Piece<'_>| {
            if let Piece::Event(crate::event::Event::Delta { delta }) = piece {
                text.push_str(&delta);
            }
        };
        let ended = decoder.push(body.as_bytes(), &mut out).and_then(|_| decoder.end(&mut out));
        ended.map(|()| text).map_err(|failure| failure.code)
    }

    #[test]
    fn a_pretty_printed_error_in_the_stream_is_an_error() {
        let body = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n{\n  \"error\": {\n    \"code\": 429,\n    \
                    \"message\": \"}\"\n  }\n}\n";

        assert_eq!(answer(body), Err(Code::UpstreamRateLimit));
    }

    #[test]
    fn an_error_behind_a_200_is_an_error() {
        assert_eq!(answer("{\"error\":{\"message\":\"m\",\"code\":\"insufficient_quota\"}}"), Err(Code::UpstreamQuota));
        assert_eq!(answer("[{\"error\":{\"code\":503}}]\n"), Err(Code::UpstreamOverloaded));
    }

    #[test]
    fn an_answer_that_was_not_streamed_is_an_answer() {
        let body = "{\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}";

        assert_eq!(answer(body), Ok("Hi".into()));
    }

    #[test]
    fn what_is_no_answer_is_a_breach_of_protocol() {
        for body in ["", "\n\n", ": ping\n\n", "<html>\n<body>no: never</body>\n", "{\"status\":\"fine\"}"] {
            assert_eq!(answer(body), Err(Code::UpstreamProtocol), "{body:?}");
        }
    }

    #[test]
    fn a_last_frame_that_is_cut_is_truncated_not_malformed() {
        assert_eq!(answer("data: {\"choices\":[{\"del"), Err(Code::UpstreamTruncated));
    }

    #[test]
    fn a_page_in_place_of_lines_is_no_line_that_is_cut() {
        let page = "<html><body>Bad gateway</body></html>";

        assert_eq!(answer_in(Dialect::Ollama, page), Err(Code::UpstreamProtocol));
        assert_eq!(answer_in(Dialect::Ollama, "{\"message\":{\"cont"), Err(Code::UpstreamTruncated));
    }

    #[test]
    fn an_answer_that_is_cut_tells_what_it_has_cost_and_nothing_else() {
        let mut decoder = AnswerDecoder::new(&*registry::adapter(Dialect::OpenaiChat));
        let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n";
        decoder.push(body.as_bytes(), &mut |_| {}).unwrap();
        let mut told = Vec::new();

        decoder.abandon(&mut |piece| told.push(format!("{piece:?}")));

        assert!(told.len() == 1 && told[0].contains("input: 7, output: 3"), "{told:?}");
    }

    #[test]
    fn comments_are_heard_but_are_no_frames() {
        let adapter = registry::adapter(Dialect::OpenaiChat);
        let mut decoder = AnswerDecoder::new(&*adapter);

        let mut heard = |text: &str| {
            decoder.push(text.as_bytes(), &mut |_| {}).unwrap();
            decoder.heard()
        };

        assert_eq!(heard(": ke"), Heard::Nothing);
        assert_eq!(heard("ep-alive\n\n"), Heard::Comments);
        assert_eq!(heard("data: {}\n\n"), Heard::Frames);
    }
}
