//! Cursor: a place in an organisation's list of threads, as clients carry it.

use std::fmt;
use std::str::FromStr;

use super::UnixMs;
use crate::chat::ThreadId;

/// A place in an organisation's list of threads: right after the named one. Says nothing that the list did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub(super) updated_at: UnixMs,
    pub(super) id: ThreadId,
}

/// The text is not a cursor that the store gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCursor;

impl Cursor {
    /// The longest text that is looked at.
    const LEN_MAX: usize = 96;
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.updated_at, self.id)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.len() > Self::LEN_MAX {
            return Err(BadCursor);
        }
        let (updated_at, id) = text.split_once('.').ok_or(BadCursor)?;
        let updated_at = UnixMs::from_str_radix(updated_at, 16).map_err(|_| BadCursor)?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if id.is_empty() || !id.bytes().all(is_word) {
            return Err(BadCursor);
        }
        Ok(Self { updated_at, id: ThreadId::new(id) })
    }
}

impl fmt::Display for BadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor")
    }
}

impl std::error::Error for BadCursor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        let cursor = Cursor { updated_at: 1_790_000_000_123, id: ThreadId::generate() };

        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn texts_that_no_store_gave_are_refused() {
        let long = format!("1.{}", "a".repeat(200));
        for text in ["", ".", "1.", ".t_1", "x.t_1", "1.t 1", "1.t'--", "1.t_é", "99999999999999999999.t", &long] {
            assert_eq!(text.parse::<Cursor>(), Err(BadCursor), "{text}");
        }
    }
}
