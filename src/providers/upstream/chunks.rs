//! Chunks: takes the chunked coding off a body (RFC 9112, section 7.1) as its bytes come. Pure.
//!
//! Strict, so that no two readers of the same bytes see different bodies: a size is hexadecimal digits, a line ends in
//! CR LF, nothing stands between data and its line end. Extensions and trailers mean nothing here; they are skipped,
//! and bounded.

use bytes::{Buf, Bytes};

/// How much may stand between the data of two chunks, or follow the last: a size with its extensions, all trailers.
const FRAMING_BYTES_MAX: usize = 8 * 1024;

/// A body is not chunked as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// How far a chunked body has been read.
#[derive(Debug)]
pub(super) struct Chunks {
    expects: Expects,
    /// The size of the chunk as read so far, then how much of its data is still to come.
    left: u64,
    /// How much has come since the last byte of data.
    framing_bytes: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// The first digit of a size.
    Size,
    /// More digits, or what ends them.
    Digits,
    /// Blanks after a size: old servers fill its field with them.
    Blanks,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// A trailer, or the line end that closes the body.
    TrailerOrEnd,
    Trailer,
    TrailerLf,
    EndLf,
    Nothing,
}

impl Chunks {
    /// Nothing has come.
    pub(super) fn new() -> Self {
        Self { expects: Expects::Size, left: 0, framing_bytes: 0 }
    }

    /// Takes the next piece of data from the front of `bytes`, with all that stands before it. Without one, more bytes
    /// are needed, or the body has ended; what is then left of `bytes` follows it.
    pub(super) fn cut(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
        let read = self.framing(bytes)?;
        bytes.advance(read);
        let is_data = self.expects == Expects::Data && !bytes.is_empty();
        Ok(is_data.then(|| self.data(bytes)))
    }

    /// Whether the last chunk and what belongs to it have been read.
    pub(super) fn have_ended(&self) -> bool {
        self.expects == Expects::Nothing
    }

    /// How many bytes stand before the next data, or the end.
    fn framing(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut count = 0;
        for &byte in bytes {
            if matches!(self.expects, Expects::Data | Expects::Nothing) {
                break;
            }
            self.expects = self.after(byte)?;
            count += 1;
        }
        self.framing_bytes += count;
        if self.framing_bytes > FRAMING_BYTES_MAX { Err(Malformed) } else { Ok(count) }
    }

    /// Takes as much of the chunk as is there; there is something.
    fn data(&mut self, bytes: &mut Bytes) -> Bytes {
        let count = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= count as u64;
        if self.left == 0 {
            self.expects = Expects::DataCr;
            self.framing_bytes = 0;
        }
        bytes.split_to(count)
    }

    /// What comes after this byte of framing.
    fn after(&mut self, byte: u8) -> Result<Expects, Malformed> {
        use Expects as E;
        Ok(match (self.expects, byte) {
            (E::Size | E::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (E::Digits | E::Blanks, b' ' | b'\t') => E::Blanks,
            (E::Digits | E::Blanks, b';') => E::Extension,
            (E::Digits | E::Blanks | E::Extension, b'\r') => E::SizeLf,
            (E::Extension, byte) if is_text(byte) => E::Extension,
            (E::SizeLf, b'\n') if self.left == 0 => E::TrailerOrEnd,
            (E::SizeLf, b'\n') => E::Data,
            (E::DataCr, b'\r') => E::DataLf,
            (E::DataLf, b'\n') => E::Size,
            (E::TrailerOrEnd, b'\r') => E::EndLf,
            (E::Trailer, b'\r') => E::TrailerLf,
            (E::TrailerOrEnd | E::Trailer, byte) if is_text(byte) => E::Trailer,
            (E::TrailerLf, b'\n') => E::TrailerOrEnd,
            (E::EndLf, b'\n') => E::Nothing,
            _ => return Err(Malformed),
        })
    }

    fn digit(&mut self, digit: u8) -> Result<Expects, Malformed> {
        let value = char::from(digit).to_digit(16).ok_or(Malformed)?;
        let size = self.left.checked_mul(16).ok_or(Malformed)?;
        self.left = size + u64::from(value);
        Ok(Expects::Digits)
    }
}

/// Whether a byte may stand in a line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body that arrives in these reads: its data, and what follows it once it has ended.
    fn read<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<Bytes>, Option<Vec<u8>>), Malformed> {
        let (mut chunks, mut pieces, mut rest) = (Chunks::new(), Vec::new(), Vec::new());
        for read in reads {
            let mut bytes = Bytes::copy_from_slice(read);
            while let Some(piece) = chunks.cut(&mut bytes)? {
                assert!(!piece.is_empty());
                pieces.push(piece);
            }
            assert!(bytes.is_empty() || chunks.have_ended());
            rest.extend_from_slice(&bytes);
        }
        Ok((pieces, chunks.have_ended().then_some(rest)))
    }

    /// The data of a body that comes at once, and what follows it.
    fn whole(body: &str) -> Result<(String, Option<String>), Malformed> {
        let (pieces, rest) = read([body.as_bytes()])?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ok((text(pieces.concat()), rest.map(text)))
    }

    #[test]
    fn the_cuts_of_the_network_do_not_matter() {
        let body = b"5\r\ndata:\r\nA ;a=\"b\"\r\n one\n\ndata\r\n003;x\r\n: 2\r\n0;last\r\nX-Sum: 1\r\nY:\r\n\r\nnext";
        let expected = (b"data: one\n\ndata: 2".to_vec(), Some(b"next".to_vec()));
        for size in 1..=body.len() {
            let (pieces, rest) = read(body.chunks(size)).unwrap();
            assert_eq!((pieces.concat(), rest), expected, "reads of {size}");
        }
        for cut in 0..=body.len() {
            let (pieces, rest) = read([&body[..cut], &body[cut..]]).unwrap();
            assert_eq!((pieces.concat(), rest), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_chunk_that_is_there_is_one_piece_of_the_bytes_that_were_read() {
        let mut bytes = Bytes::from_static(b"3\r\none\r\n3\r\ntwo\r\n");
        let (read, mut chunks) = (bytes.clone(), Chunks::new());

        let one = chunks.cut(&mut bytes).unwrap().unwrap();
        let two = chunks.cut(&mut bytes).unwrap().unwrap();

        assert_eq!((&*one, &*two), (&b"one"[..], &b"two"[..]));
        assert_eq!(two.as_ptr(), read[11..].as_ptr(), "nothing is copied");
        assert_eq!(chunks.cut(&mut bytes), Ok(None));
        assert!(bytes.is_empty() && !chunks.have_ended());
    }

    #[test]
    fn sizes_have_any_case_and_leading_zeros() {
        for size in ["c", "C", "00c", "000000000000000000000c"] {
            assert_eq!(
                whole(&format!("{size}\r\ntwelve bytes\r\n0\r\n\r\n")),
                Ok(("twelve bytes".into(), Some("".into())))
            );
        }
        assert_eq!(whole("ffffffffffffffff\r\ndata"), Ok(("data".into(), None)));
        assert_eq!(whole("000\r\n\r\n"), Ok((String::new(), Some(String::new()))));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let sizes =
            ["", " 1", "+1", "-1", "0x1", "1g", "1 2", "1,2", "\u{661}", ";a", "10000000000000000", "1\t1", "1\0"];
        for size in sizes {
            assert_eq!(whole(&format!("{size}\r\nd\r\n")), Err(Malformed), "{size:?}");
        }
    }

    #[test]
    fn lines_end_in_cr_lf_and_data_ends_where_its_size_says() {
        let bodies = [
            "1\nd\r\n",
            "1\rd\r\n",
            "1\r\r\nd\r\n",
            "1;a\nd\r\n",
            "1;\u{1}\r\nd\r\n",
            "1\r\nd\n",
            "1\r\nd\r0",
            "1\r\nda\r\n",
            "2\r\nd\r\n0\r\n\r\n",
            "1\r\nd\r\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\na: b\n\r\n",
            "0\r\na: b\rc\r\n\r\n",
        ];
        for body in bodies {
            assert_eq!(whole(body), Err(Malformed), "{body:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_but_not_their_number_in_the_whole_body() {
        let check = |body: String, expected: bool| assert_eq!(whole(&body).is_ok(), expected, "{} bytes", body.len());
        for (len, expected) in [(FRAMING_BYTES_MAX - 4, true), (FRAMING_BYTES_MAX, false)] {
            check(format!("1;{}\r\nd\r\n0\r\n\r\n", "x".repeat(len)), expected);
            check(format!("{}1\r\nd\r\n0\r\n\r\n", "0".repeat(len)), expected);
        }
        for (count, expected) in [(FRAMING_BYTES_MAX / 6 - 2, true), (FRAMING_BYTES_MAX / 6 + 1, false)] {
            check(format!("0\r\n{}\r\n", "a: b\r\n".repeat(count)), expected);
        }
        let chunk = format!("1;{}\r\nd\r\n", "x".repeat(1000));
        check(chunk.repeat(100) + "0\r\n\r\n", true);
    }

    #[test]
    fn a_body_that_is_cut_has_not_ended() {
        let body = "1\r\nd\r\n0\r\na: b\r\n\r\n";
        for cut in 0..body.len() {
            assert_eq!(whole(&body[..cut]).map(|(_, rest)| rest), Ok(None), "cut at {cut}");
        }
        assert_eq!(whole(body), Ok(("d".into(), Some(String::new()))));
    }
}
