//! HeadEnd: finds the empty line that ends a request's head, in pieces of any size.

/// See the module. It begins with the first byte of a request line.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// Whether nothing but a CR has come since the last line ended.
    is_line_empty: bool,
}

impl HeadEnd {
    /// How many bytes of `piece` belong to the head, if it ends in it; then the next head may begin.
    pub(super) fn find(&mut self, piece: &[u8]) -> Option<usize> {
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                b'\n' if self.is_line_empty => {
                    self.is_line_empty = false;
                    return Some(at + 1);
                }
                b'\n' => self.is_line_empty = true,
                b'\r' => {}
                _ => self.is_line_empty = false,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line_however_it_is_cut() {
        for head in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.1\r\n\r\n"] {
            let bytes = format!("{head}rest");
            for cut in 0..head.len() {
                let mut end = HeadEnd::default();
                assert_eq!(end.find(&bytes.as_bytes()[..cut]), None, "{head:?} at {cut}");
                assert_eq!(end.find(&bytes.as_bytes()[cut..]), Some(head.len() - cut), "{head:?} at {cut}");
                assert_eq!(end.find(b"GET"), None, "the next one begins anew");
            }
        }
    }
}
