//! SSE: takes events out of the bytes of an event stream, however they were cut. No I/O.
//!
//! By the book (WHATWG HTML, 9.2.6), with one difference: an event has its own id or none, so that a test sees which
//! events carry one.

use serde_json::Value;

/// The longest line that is accepted.
const LINE_LEN_MAX: usize = 32 * 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its own id.
    pub id: Option<String>,
    /// Its name; `message` if it has none.
    pub name: String,
    /// Its data.
    pub data: String,
}

impl Event {
    /// The data as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_default()
    }
}

/// A line is longer than anybody should send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Reads one event stream.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last line ended in CR: an LF at the very next byte belongs to it.
    after_cr: bool,
    begun: bool,
    id: Option<String>,
    name: Option<String>,
    data: Option<String>,
    comments: u64,
    dropped: u64,
}

impl Parser {
    /// Takes the next bytes; appends the events that they complete.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Event>) -> Result<(), TooLong> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + part.len() > LINE_LEN_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            bytes = rest;
            if let Some((end, rest)) = rest.split_first() {
                self.after_cr = *end == b'\r';
                bytes = rest;
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, out);
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// How many comments there were.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// How many events there were without data: no browser delivers them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether the stream ends in the middle of an event.
    pub fn is_partial(&self) -> bool {
        !self.line.is_empty() || self.id.is_some() || self.name.is_some() || self.data.is_some()
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<Event>) {
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if !self.begun => rest,
            _ => line,
        };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch(out);
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "id" => self.id = Some(value.to_owned()),
            "event" => self.name = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
    }

    fn dispatch(&mut self, out: &mut Vec<Event>) {
        let (id, name, data) = (self.id.take(), self.name.take(), self.data.take());
        match data {
            Some(data) => {
                let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "message".to_owned());
                out.push(Event { id, name, data });
            }
            None if id.is_some() || name.is_some() => self.dropped += 1,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses the bytes whole, and in two reads at every cut, and byte by byte: always the same.
    fn parse(stream: &[u8]) -> Vec<(Option<String>, String, String)> {
        let parse = |reads: &[&[u8]]| {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            reads.iter().for_each(|read| parser.push(read, &mut events).unwrap());
            events
        };
        let whole = parse(&[stream]);
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(parse(&[left, right]), whole, "cut at {cut}");
        }
        assert_eq!(parse(&stream.chunks(1).collect::<Vec<_>>()), whole);
        whole.into_iter().map(|event| (event.id, event.name, event.data)).collect()
    }

    fn event(id: Option<&str>, name: &str, data: &str) -> (Option<String>, String, String) {
        (id.map(str::to_owned), name.to_owned(), data.to_owned())
    }

    #[test]
    fn an_event_has_an_id_a_name_and_data() {
        let stream = "id: 1-1\nevent: delta\ndata: {\"delta\":\"日本 🦀\"}\n\ndata:x\n\n".as_bytes();

        assert_eq!(
            parse(stream),
            [event(Some("1-1"), "delta", "{\"delta\":\"日本 🦀\"}"), event(None, "message", "x")]
        );
    }

    #[test]
    fn every_kind_of_line_end_counts_once() {
        let stream = b"data: a\r\n\r\ndata: b\r\rdata: c\n\ndata: d\r\n\ndata: e\n\r\n";

        let data: Vec<_> = parse(stream).into_iter().map(|(_, _, data)| data).collect();
        assert_eq!(data, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn lines_of_data_are_joined_and_only_one_space_is_stripped() {
        assert_eq!(parse(b"data:  a\ndata\ndata:b:c\n\n"), [event(None, "message", " a\n\nb:c")]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_beginning_only() {
        assert_eq!(parse("\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes()), [event(None, "message", "a")]);
    }

    #[test]
    fn comments_and_events_without_data_are_counted_and_not_delivered() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.push(b": hi\n\n:\n\nevent: ping\n\nid: 3\n\n\n\nretry: 5\n\n", &mut events).unwrap();

        assert_eq!(events, []);
        assert_eq!((parser.comments(), parser.dropped()), (2, 2));
        assert!(!parser.is_partial());
    }

    #[test]
    fn an_event_without_its_blank_line_is_not_delivered() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.push(b"data: a\n", &mut events).unwrap();

        assert_eq!(events, []);
        assert!(parser.is_partial());
    }

    #[test]
    fn invalid_utf_8_is_replaced() {
        assert_eq!(parse(b"data: a\xff\n\n"), [event(None, "message", "a\u{fffd}")]);
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let piece = vec![b'x'; 1024 * 1024];
        let pushed = (0..40).try_for_each(|_| parser.push(&piece, &mut events));

        assert_eq!(pushed, Err(TooLong));
    }
}
