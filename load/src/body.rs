//! Body: takes the pieces of an HTTP/1.1 body out of the bytes of a connection, however they were cut. No I/O.

use bytes::{Buf, Bytes, BytesMut};

/// The longest size line of a chunk, extensions included, and the longest trailer line.
const LINE_LEN_MAX: usize = 4 * 1024;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// At the terminal chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What the bytes so far contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of the body.
    Data(Bytes),
    /// Nothing yet: more bytes are needed.
    More,
    /// The body is complete; what is left in the buffer belongs to the next message.
    End,
}

/// The bytes are not a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads one body.
#[derive(Debug, Clone, Copy)]
pub struct Decoder(State);

#[derive(Debug, Clone, Copy)]
enum State {
    Left(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    Ended,
}

impl Decoder {
    /// A decoder for a body that begins with the next byte.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Takes the next piece out of the buffer.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.0 {
                State::Left(0) | State::Ended => return Ok(Piece::End),
                State::Left(left) => return Ok(self.take(buffer, left, State::Left)),
                State::ChunkData(0) => self.0 = State::ChunkEnd,
                State::ChunkData(left) => return Ok(self.take(buffer, left, State::ChunkData)),
                State::UntilClose if buffer.is_empty() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data(buffer.split().freeze())),
                State::ChunkSize => match httparse::parse_chunk_size(buffer).map_err(|_| Malformed)? {
                    httparse::Status::Complete((line, size)) => {
                        buffer.advance(line);
                        self.0 = if size == 0 { State::Trailer } else { State::ChunkData(size) };
                    }
                    httparse::Status::Partial => return wait_for_line(buffer),
                },
                State::ChunkEnd if buffer.len() < 2 => return Ok(Piece::More),
                State::ChunkEnd if !buffer.starts_with(b"\r\n") => return Err(Malformed),
                State::ChunkEnd => {
                    buffer.advance(2);
                    self.0 = State::ChunkSize;
                }
                State::Trailer => match buffer.windows(2).position(|pair| pair == b"\r\n") {
                    Some(length) => {
                        buffer.advance(length + 2);
                        self.0 = if length == 0 { State::Ended } else { State::Trailer };
                    }
                    None => return wait_for_line(buffer),
                },
            }
        }
    }

    /// Whether a connection that closes now ends the body properly.
    pub fn may_close(&self) -> bool {
        matches!(self.0, State::UntilClose | State::Ended | State::Left(0))
    }

    fn take(&mut self, buffer: &mut BytesMut, left: u64, state: fn(u64) -> State) -> Piece {
        if buffer.is_empty() {
            return Piece::More;
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.0 = state(left - length as u64);
        Piece::Data(buffer.split_to(length).freeze())
    }
}

fn wait_for_line(buffer: &BytesMut) -> Result<Piece, Malformed> {
    if buffer.len() > LINE_LEN_MAX { Err(Malformed) } else { Ok(Piece::More) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the bytes as they arrive in pieces of one size: the body, whether it ended, what is left over.
    fn decode(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut ended = false;
        for read in bytes.chunks(step) {
            buffer.extend_from_slice(read);
            while !ended {
                match decoder.next(&mut buffer)? {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::More => break,
                    Piece::End => ended = true,
                }
            }
        }
        Ok((body, ended, buffer.to_vec()))
    }

    fn at_all_cuts(framing: Framing, bytes: &[u8], expected: Result<(&[u8], bool, &[u8]), Malformed>) {
        for step in 1..=bytes.len() {
            let decoded = decode(framing, bytes, step);
            let decoded = decoded.as_ref().map(|(body, ended, rest)| (&body[..], *ended, &rest[..]));
            assert_eq!(decoded.map_err(|error| *error), expected, "in reads of {step}");
        }
    }

    #[test]
    fn chunks_end_with_the_terminal_one_and_leave_the_next_message_alone() {
        at_all_cuts(
            Framing::Chunked,
            b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nHTTP",
            Ok((b"abc0123456789", true, b"HTTP")),
        );
    }

    #[test]
    fn trailers_are_skipped() {
        at_all_cuts(Framing::Chunked, b"1\r\na\r\n0\r\nx: y\r\n\r\nrest", Ok((b"a", true, b"rest")));
    }

    #[test]
    fn a_length_counts_the_bytes() {
        at_all_cuts(Framing::Length(3), b"abcdef", Ok((b"abc", true, b"def")));
        assert_eq!(Decoder::new(Framing::Length(0)).next(&mut BytesMut::new()), Ok(Piece::End));
    }

    #[test]
    fn without_a_length_the_body_goes_on_until_the_end_of_the_connection() {
        at_all_cuts(Framing::UntilClose, b"0\r\n\r\n", Ok((b"0\r\n\r\n", false, b"")));
        assert!(Decoder::new(Framing::UntilClose).may_close());
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        at_all_cuts(Framing::Chunked, b"zz\r\n", Err(Malformed));
        at_all_cuts(Framing::Chunked, b"1\r\nab\r\n", Err(Malformed));
    }

    #[test]
    fn a_body_cut_inside_a_chunk_has_not_ended() {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut buffer = BytesMut::from(&b"5\r\nab"[..]);

        assert_eq!(decoder.next(&mut buffer), Ok(Piece::Data(Bytes::from_static(b"ab"))));
        assert_eq!(decoder.next(&mut buffer), Ok(Piece::More));
        assert!(!decoder.may_close());
    }
}
