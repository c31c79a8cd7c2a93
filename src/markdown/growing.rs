//! Growing: the HTML of a text whose end is still to come.
//!
//! Blocks (paragraphs, lists, code, tables) that the text has left behind are settled: whatever comes, their HTML is what
//! it will be in the whole. Only the block at the end is open and is rendered again when the text has grown. So a reader
//! who asks for the open block alone has in the end what [`to_html`](super::to_html) makes of the whole, and nothing that
//! was shown has moved. The one exception are links whose addresses are defined in another block.

use std::borrow::Cow;

use pulldown_cmark::{Event, Parser, Tag};

use super::{OPTIONS, TEXT_BYTES_MAX, render};

/// A text that grows, as HTML.
#[derive(Debug, PartialEq, Eq)]
pub struct Growing {
    /// Bytes of the text whose HTML does not change any more. The text after them is a text of its own.
    pub settled: usize,
    /// The HTML of these.
    pub html: String,
    /// The HTML of the open block as far as it is there.
    pub rest: String,
}

/// Renders a text that goes on; `None` when it is too long to be rendered.
pub fn growing(text: &str) -> Option<Growing> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let settled = settled(text);
    let (done, open) = text.split_at(settled);
    Some(Growing { settled, html: render(done), rest: render(&presentable(open)) })
}

/// Where the block begins that the last whole line belongs to. The line after it may still turn into anything, also
/// into a part of that block, but into nothing of the blocks before.
fn settled(text: &str) -> usize {
    let lines = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    let mut depth = 0_usize;
    let mut last = 0;
    for (event, range) in Parser::new_ext(lines, OPTIONS).into_offset_iter() {
        let is_block = depth == 0;
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if is_block {
            last = range.start;
        }
    }
    // A block's range begins after its indentation.
    lines[..last].rfind(['\n', '\r']).map_or(0, |at| at + 1)
}

/// An open block as it can be shown: without a last line of which nobody knows yet what it will be, and with what is
/// emphasized, code or a link ended where the text ends.
fn presentable(open: &str) -> Cow<'_, str> {
    let line = open.rfind('\n').map_or(0, |at| at + 1);
    // A `-` would make a heading of the line before, and be the beginning of a list a moment later.
    if open[line..].bytes().all(|byte| byte.is_ascii_digit() || b" \t>-=*+#|~`:._".contains(&byte)) {
        return Cow::Borrowed(&open[..line]);
    }
    match last_inline(open) {
        Some(start) => ended(open, start),
        None => Cow::Borrowed(open),
    }
}

/// Where the text of the last paragraph, heading, item or cell begins; none in code and HTML.
fn last_inline(text: &str) -> Option<usize> {
    let mut start = None;
    for (event, range) in Parser::new_ext(text, OPTIONS).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(_) | Tag::HtmlBlock) => start = None,
            Event::Start(Tag::Paragraph | Tag::Heading { .. } | Tag::Item | Tag::TableCell) => {
                start = Some(range.start);
            }
            _ => {}
        }
    }
    start
}

/// Ends what is open in the inline text from `start` on.
fn ended(text: &str, start: usize) -> Cow<'_, str> {
    let marks = Marks::of(&text[start..]);
    if let Some(tick) = marks.code {
        let fence = "`".repeat(tick.len);
        // Nothing in it yet: a mark alone would be shown as it is.
        if start + tick.at + tick.len == text.len() {
            return Cow::Borrowed(&text[..start + tick.at]);
        }
        return Cow::Owned(format!("{text}{fence}"));
    }
    let mut shown = text.to_owned();
    if let Some(link) = marks.link {
        // What is emphasized within a link goes with it.
        let is_outside = marks.bold.is_none_or(|bold| bold < link.label);
        shown.truncate(start + link.address.filter(|_| is_outside).unwrap_or(text.len() - start));
        if is_outside {
            shown.remove(start + link.label);
        } else {
            shown.truncate(start + link.label);
        }
    }
    let Some(bold) = marks.bold.filter(|bold| start + bold + 2 <= shown.len()) else { return Cow::Owned(shown) };
    shown.truncate(shown.trim_end().len());
    // Half of the mark that ends it may be there.
    if shown.ends_with('*') && !shown.ends_with("**") {
        shown.pop();
    }
    match shown.len() > start + bold + 2 {
        true => shown.push_str("**"),
        false => shown.truncate(start + bold),
    }
    Cow::Owned(shown)
}

/// Backticks that begin code.
#[derive(Clone, Copy)]
struct Ticks {
    at: usize,
    len: usize,
}

/// The beginning of a link: the place of its `[`, and of its `]` if the address has begun.
#[derive(Clone, Copy)]
struct Link {
    label: usize,
    address: Option<usize>,
}

/// What is open at the end of an inline text: byte places of marks without their counterpart.
#[derive(Default)]
struct Marks {
    code: Option<Ticks>,
    bold: Option<usize>,
    link: Option<Link>,
}

impl Marks {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut marks = Self::default();
        let mut at = 0;
        while at < bytes.len() {
            let run = bytes[at..].iter().take_while(|byte| **byte == bytes[at]).count();
            let mut len = 1;
            match (bytes[at], marks.code) {
                (b'`', open) => {
                    len = run;
                    marks.code = match open {
                        None => Some(Ticks { at, len }),
                        Some(open) if open.len == len => None,
                        open => open,
                    };
                }
                (_, Some(_)) => {}
                (b'\\', _) => len = 2,
                (b'*', _) if run >= 2 => {
                    len = run;
                    marks.bold = if marks.bold.is_some() { None } else { Some(at) };
                }
                (b'[', _) => marks.link = Some(Link { label: at, address: None }),
                (b']', _) => {
                    let has_address = bytes.get(at + 1) == Some(&b'(');
                    marks.link = marks.link.filter(|_| has_address).map(|link| Link { address: Some(at), ..link });
                }
                (b')', _) if marks.link.is_some_and(|link| link.address.is_some()) => marks.link = None,
                _ => {}
            }
            at += len;
        }
        // `[2` is the beginning of a reference to a source.
        marks.link = marks.link.filter(|link| !bytes[link.label + 1..].iter().all(u8::is_ascii_digit));
        marks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::markdown::to_html;

    /// What a reader has at the end who took `text` in these pieces and asked for its open block after each of them.
    fn read_in(pieces: &[&str]) -> String {
        let mut shown = String::new();
        let mut open = String::new();
        for piece in pieces {
            open.push_str(piece);
            let growing = growing(&open).unwrap();
            shown.push_str(&growing.html);
            open.drain(..growing.settled);
        }
        shown + &render(&open)
    }

    fn check_settled(text: &str, settled: &str) {
        assert_eq!(&text[..growing(text).unwrap().settled], settled, "{text:?}");
    }

    #[test]
    fn a_block_is_settled_when_another_one_has_begun_for_sure() {
        check_settled("one\n\ntwo\n", "one\n\n");
        check_settled("one\n\ntwo", "");
        check_settled("one\ntwo\n", "");
        check_settled("# one\ntwo\n", "# one\n");
        check_settled("```\none\n\ntwo\n", "");
        check_settled("```\none\n```\ntwo\n", "```\none\n```\n");
        check_settled("| a |\n|---|\n| 1 |\n", "");
        check_settled("one\n\n    code\n", "one\n\n");
        // The `2` may be the next item of the list.
        check_settled("1. one\n\n2", "");
        check_settled("1. one\n\n2. two\n", "");
    }

    fn check_rest(text: &str, expected: &str) {
        assert_eq!(growing(text).unwrap().rest.trim_end(), expected, "{text:?}");
    }

    #[test]
    fn what_is_open_is_shown_as_what_it_becomes() {
        check_rest("a **b c", "<p>a <strong>b c</strong></p>");
        check_rest("a **b*", "<p>a <strong>b</strong></p>");
        check_rest("a **b** c", "<p>a <strong>b</strong> c</p>");
        check_rest("a **", "<p>a</p>");
        check_rest("a `b", "<p>a <code>b</code></p>");
        check_rest("a `b **c` d", "<p>a <code>b **c</code> d</p>");
        check_rest("a [b c", "<p>a b c</p>");
        check_rest("a [b](https://c.exam", "<p>a b</p>");
        check_rest("a **[b](https://c.exam", "<p>a <strong>b</strong></p>");
        check_rest("a [**b", "<p>a</p>");
        check_rest("a [12", "<p>a [12</p>");
        check_rest("a [12]", "<p>a [12]</p>");
        check_rest("- a\n- **b", "<ul>\n<li>a</li>\n<li><strong>b</strong></li>\n</ul>");
        check_rest("```\na **b", "<pre><code>a **b</code></pre>");
        check_rest("```\na [b", "<pre><code>a [b</code></pre>");
    }

    #[test]
    fn a_line_that_may_be_anything_is_not_shown_yet() {
        check_rest("Things:\n-", "<p>Things:</p>");
        check_rest("Things:\n- ", "<p>Things:</p>");
        check_rest("Things:\n- a", "<p>Things:</p>\n<ul>\n<li>a</li>\n</ul>");
        check_rest("a | b\n--", "<p>a | b</p>");
        check_rest("1. a\n2", "<ol>\n<li>a</li>\n</ol>");
    }

    #[test]
    fn a_long_text_that_grows_is_rendered_about_once() {
        let paragraph = "Words of **some** weight, and `code`.\n\n";
        let mut open = String::new();
        let mut rendered = 0;
        for _ in 0..2_000 {
            open.push_str(paragraph);
            rendered += open.len();
            let settled = growing(&open).unwrap().settled;
            open.drain(..settled);
        }
        assert!(rendered < 3 * 2_000 * paragraph.len(), "{rendered} bytes");
    }

    #[test]
    fn a_text_that_is_too_long_stays_plain() {
        assert_eq!(growing(&"a".repeat(TEXT_BYTES_MAX + 1)), None);
    }

    const TEXT: &str = r"([a-c*_`~|<>#\[\]()!&.:= -]|\n|\n\n|\n- |\n  |\n    |\n1\. |\n2\. |\n> |```|~~~|\n\| |---|\*\*|<b>|\r\n){0,40}";

    proptest! {
        #[test]
        fn a_text_in_pieces_becomes_what_it_becomes_as_a_whole(text in TEXT, cuts in prop::collection::vec(0.0..1.0, 0..6)) {
            // What is defined elsewhere is the exception.
            prop_assume!(!text.contains("]:"));
            let mut places: Vec<usize> = cuts.iter().map(|cut: &f64| (cut * text.len() as f64) as usize).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&str> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read_in(&pieces), to_html(&text).unwrap());
        }
    }
}
