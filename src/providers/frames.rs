//! Frames: cuts the bytes of an answer into frames, however the network has cut them into reads.
//!
//! Lenient where servers are sloppy: LF, CR and CRLF end a line, a byte order mark is skipped, invalid UTF-8 becomes
//! U+FFFD, a last frame without its blank line counts. Time is linear in the bytes, memory is capped per frame, and a
//! frame that lies whole in one read is handed on without a copy.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{Flow, Frame, Framing};
use crate::failure::{Code, Failure};

/// The longest frame that is accepted by default, in bytes.
pub const FRAME_LEN_MAX: usize = 8 * 1024 * 1024;

/// Buffers that grew beyond this for one large frame are given back after it.
const BUFFER_LEN_KEPT: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the bytes of an answer consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// A comment line: a sign of life without content.
    Comment,
    /// A line of an event stream that is none of its fields. Mostly noise, but some servers write a bare JSON
    /// document into the stream when they fail.
    Stray(&'a str),
}

/// Takes units as they are found; `Err` and [`Flow::Ended`] stop the cutting.
pub type Sink<'s> = dyn FnMut(Unit<'_>) -> Result<Flow, Failure> + 's;

/// Cuts one answer.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    len_max: usize,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The last line ended in CR, so that an LF at the very next byte belongs to it.
    after_cr: bool,
    at_start: bool,
    event: Option<String>,
    /// The `data:` lines of the current frame that had to be copied.
    data: Option<Vec<u8>>,
}

impl Framer {
    /// A framer for a new answer, with the longest frame that it accepts.
    pub fn new(framing: Framing, len_max: usize) -> Self {
        Self { framing, len_max, line: Vec::new(), after_cr: false, at_start: true, event: None, data: None }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut rest: &[u8], out: &mut Sink<'_>) -> Result<Flow, Failure> {
        // The only data line of the current frame so far, as long as it need not be copied.
        let mut held = None;
        while let [first, after_first @ ..] = rest {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = after_first;
                continue;
            }
            let Some(end) = self.line_end(rest) else {
                self.check_len(self.line.len() + rest.len())?;
                self.line.extend_from_slice(rest);
                break;
            };
            let (head, tail) = rest.split_at(end);
            self.after_cr = tail.starts_with(b"\r");
            rest = &tail[1..];
            self.check_len(self.line.len() + head.len())?;
            let flow = if self.line.is_empty() {
                self.whole_line(head, &mut held, out)?
            } else {
                self.continued_line(head, &mut held, out)?
            };
            if flow == Flow::Ended {
                return Ok(Flow::Ended);
            }
        }
        self.keep(held);
        Ok(Flow::More)
    }

    /// Takes the end of the answer: what is unfinished is accepted as if it were finished.
    pub fn end(&mut self, out: &mut Sink<'_>) -> Result<Flow, Failure> {
        let mut held = None;
        if !self.line.is_empty() && self.continued_line(b"", &mut held, out)? == Flow::Ended {
            return Ok(Flow::Ended);
        }
        self.dispatch(held, out)
    }

    fn line_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.framing {
            Framing::Sse => memchr2(b'\n', b'\r', bytes),
            Framing::NdJson => memchr(b'\n', bytes),
        }
    }

    fn check_len(&self, len: usize) -> Result<(), Failure> {
        if len <= self.len_max {
            return Ok(());
        }
        let message = format!("a frame of the provider's answer exceeds {} bytes", self.len_max);
        Err(Failure::new(Code::UpstreamProtocol, message))
    }

    /// Takes a line that began in an earlier read.
    fn continued_line(&mut self, head: &[u8], held: &mut Option<&[u8]>, out: &mut Sink<'_>) -> Result<Flow, Failure> {
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(head);
        self.keep(held.take());
        let mut own = None;
        let flow = self.whole_line(&line, &mut own, out)?;
        self.keep(own);
        line.clear();
        line.shrink_to(BUFFER_LEN_KEPT);
        self.line = line;
        Ok(flow)
    }

    fn whole_line<'b>(
        &mut self,
        mut line: &'b [u8],
        held: &mut Option<&'b [u8]>,
        out: &mut Sink<'_>,
    ) -> Result<Flow, Failure> {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if self.framing == Framing::NdJson {
            let line = line.trim_ascii();
            if line.is_empty() {
                return Ok(Flow::More);
            }
            let data = text(line);
            return out(Unit::Frame(Frame { event: None, data: &data }));
        }
        if line.is_empty() {
            return self.dispatch(held.take(), out);
        }
        let name_len = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(name_len);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                let len = held.map_or(0, <[u8]>::len) + self.data.as_ref().map_or(0, Vec::len);
                self.check_len(len + value.len())?;
                if held.is_none() && self.data.is_none() {
                    *held = Some(value);
                } else {
                    self.keep(held.take());
                    self.keep(Some(value));
                }
            }
            b"event" => self.event = Some(String::from_utf8_lossy(value).into_owned()),
            b"id" | b"retry" => {}
            b"" => return out(Unit::Comment),
            _ => return out(Unit::Stray(&String::from_utf8_lossy(line))),
        }
        Ok(Flow::More)
    }

    /// Copies a data line that cannot be borrowed any longer.
    fn keep(&mut self, line: Option<&[u8]>) {
        let Some(line) = line else { return };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(line);
            }
            None => self.data = Some(line.to_vec()),
        }
    }

    /// Hands on the frame that a blank line has finished. A frame without data is none, whatever its name.
    fn dispatch(&mut self, held: Option<&[u8]>, out: &mut Sink<'_>) -> Result<Flow, Failure> {
        let event = self.event.take();
        let kept = self.data.take();
        let Some(data) = held.or(kept.as_deref()) else {
            return Ok(Flow::More);
        };
        let data = text(data);
        out(Unit::Frame(Frame { event: event.as_deref(), data: &data }))
    }
}

/// As `from_utf8_lossy`, which is several times slower with what is whole.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Found {
        Frame(Option<String>, String),
        Comment,
        Stray(String),
        Failed(Code),
    }

    fn found(unit: Unit<'_>) -> Found {
        match unit {
            Unit::Frame(frame) => Found::Frame(frame.event.map(Into::into), frame.data.into()),
            Unit::Comment => Found::Comment,
            Unit::Stray(line) => Found::Stray(line.into()),
        }
    }

    fn cut<'a>(framing: Framing, len_max: usize, reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Found> {
        let mut all = Vec::new();
        let mut framer = Framer::new(framing, len_max);
        let mut sink = |unit: Unit<'_>| {
            all.push(found(unit));
            Ok(Flow::More)
        };
        let run = || {
            for read in reads {
                framer.push(read, &mut sink)?;
            }
            framer.end(&mut sink)
        };
        if let Err(failure) = run() {
            all.push(Found::Failed(failure.code));
        }
        all
    }

    fn sse(text: &str) -> Vec<Found> {
        cut(Framing::Sse, FRAME_LEN_MAX, [text.as_bytes()])
    }

    fn data(text: &str) -> Found {
        Found::Frame(None, text.into())
    }

    #[test]
    fn lines_end_in_lf_cr_or_both() {
        for end in ["\n", "\r", "\r\n"] {
            let text = "event: a\ndata: 1\n\ndata:2\n\n".replace('\n', end);

            assert_eq!(sse(&text), [Found::Frame(Some("a".into()), "1".into()), data("2")], "{end:?}");
        }
    }

    #[test]
    fn the_lines_of_one_frame_are_joined_and_only_one_space_is_dropped() {
        assert_eq!(sse("data:  a\ndata\ndata: b\n\n"), [data(" a\n\nb")]);
    }

    #[test]
    fn comments_are_life_and_unknown_fields_are_stray() {
        let units = sse(": ping\n\nid: 7\nretry: 1\nfoo: bar\ndata: x\n\n");

        assert_eq!(units, [Found::Comment, Found::Stray("foo: bar".into()), data("x")]);
    }

    #[test]
    fn a_frame_without_data_is_none_and_leaves_no_name_behind() {
        assert_eq!(sse("event: ping\n\ndata: x\n\n"), [data("x")]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_only() {
        assert_eq!(sse("\u{feff}data: \u{feff}x\n\n"), [data("\u{feff}x")]);
    }

    #[test]
    fn the_last_frame_needs_no_end() {
        assert_eq!(sse("data: a\n\ndata: b"), [data("a"), data("b")]);
    }

    #[test]
    fn a_bare_document_shows_as_stray_lines() {
        let units = sse("{\n  \"error\": {\n  }\n}\n");

        let lines = ["{", "  \"error\": {", "  }", "}"].map(|line| Found::Stray(line.into()));
        assert_eq!(units, lines);
    }

    #[test]
    fn invalid_utf8_becomes_the_replacement_character() {
        let units = cut(Framing::Sse, FRAME_LEN_MAX, [&b"data: a\xFFb\n\n"[..]]);

        assert_eq!(units, [data("a\u{fffd}b")]);
    }

    #[test]
    fn a_line_of_ndjson_is_a_frame() {
        let units = cut(Framing::NdJson, FRAME_LEN_MAX, [&b"{\"a\":1}\r\n\n{\"b\":2}"[..]]);

        assert_eq!(units, [data("{\"a\":1}"), data("{\"b\":2}")]);
    }

    #[test]
    fn a_frame_beyond_the_limit_fails_with_the_limit_in_words() {
        let mut framer = Framer::new(Framing::Sse, 16);

        let failure = framer.push(b"data: 0123456789abcdef", &mut |_| Ok(Flow::More)).unwrap_err();

        assert_eq!(failure.code, Code::UpstreamProtocol);
        assert!(failure.message.contains("16 bytes"));
    }

    #[test]
    fn endless_comments_are_no_frame() {
        let text = ": ping\n".repeat(100);

        assert_eq!(cut(Framing::Sse, 16, [text.as_bytes()]).len(), 100);
    }

    #[test]
    fn the_end_stops_the_cutting() {
        let mut seen = 0;
        let mut framer = Framer::new(Framing::Sse, FRAME_LEN_MAX);

        let flow = framer.push(b"data: 1\n\ndata: 2\n\n", &mut |_| {
            seen += 1;
            Ok(Flow::Ended)
        });

        assert_eq!(flow.unwrap(), Flow::Ended);
        assert_eq!(seen, 1);
    }

    /// Bytes that look like event streams often enough to reach every branch.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            4 => Just(b"data: ".to_vec()),
            1 => Just(b"data:".to_vec()),
            1 => Just(b"event: x".to_vec()),
            1 => Just(b": c".to_vec()),
            1 => Just(b"id: 1".to_vec()),
            4 => Just(b"\n".to_vec()),
            2 => Just(b"\r".to_vec()),
            2 => Just(b"\r\n".to_vec()),
            1 => Just(BYTE_ORDER_MARK.to_vec()),
            2 => Just("\u{2028}é漢".as_bytes().to_vec()),
            2 => Just(b"{\"a\":1}".to_vec()),
            2 => proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn the_cuts_of_the_network_do_not_matter(
            bytes in streams(),
            cuts in proptest::collection::vec(0usize..200, 0..20),
            ndjson: bool,
            len_max in prop_oneof![Just(FRAME_LEN_MAX), 4usize..40],
        ) {
            let framing = if ndjson { Framing::NdJson } else { Framing::Sse };
            let whole = cut(framing, len_max, [&bytes[..]]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let reads = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);

            prop_assert_eq!(&cut(framing, len_max, reads), &whole);
            prop_assert_eq!(&cut(framing, len_max, bytes.chunks(1)), &whole);
        }
    }
}
