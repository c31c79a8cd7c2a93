//! Markdown: an answer's text as HTML that is inert, whatever the model wrote. Pure.
//!
//! Three walls: raw HTML in the text is shown as text, never as HTML; the writer escapes all text; the result passes a
//! list of allowed elements, attributes and link schemes. The page adds a fourth with its content security policy.
//!
//! A text that still grows is rendered block by block, see [`growing()`].

mod growing;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};
use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html};

pub use self::growing::{Growing, growing};

/// Longer texts stay plain: nobody reads them, and rendering them would take long.
pub const TEXT_BYTES_MAX: usize = 512 * 1024;
const OPTIONS: Options = Options::ENABLE_TABLES.union(Options::ENABLE_STRIKETHROUGH).union(Options::ENABLE_TASKLISTS);
/// Quotes in lists in quotes: what is nested deeper than this is shown at this depth.
const DEPTH_MAX: usize = 16;
/// A fence's word for its language, at most.
const LANGUAGE_LEN_MAX: usize = 32;

static ALLOWED: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let tags = [
        "a",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ];
    let attributes = [("a", ["href"]), ("code", ["class"]), ("ol", ["start"])];
    let mut builder = Builder::empty();
    builder
        .tags(HashSet::from(tags))
        .tag_attributes(attributes.into_iter().map(|(tag, names)| (tag, HashSet::from(names))).collect())
        .generic_attributes(HashSet::new())
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"))
        .set_tag_attribute_values(HashMap::from([("a", HashMap::from([("target", "_blank")]))]))
        .attribute_filter(|element, attribute, value| match (element, attribute) {
            ("code", "class") => value.strip_prefix("language-").filter(|name| is_language(name)).map(|_| value.into()),
            _ => Some(value.into()),
        });
    builder
});

/// The text as HTML; `None` when it is too long to be rendered.
pub fn to_html(text: &str) -> Option<String> {
    (text.len() <= TEXT_BYTES_MAX).then(|| render(text))
}

fn render(text: &str) -> String {
    let mut flat = Flat::default();
    let events = Parser::new_ext(text, OPTIONS).filter_map(|event| flat.keep(event)).map(inert);
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    html::push_html(&mut out, events);
    ALLOWED.clean(&out).to_string()
}

/// Nothing but what a text needs: HTML becomes text, images become links, a single line break stays one.
fn inert(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::SoftBreak => Event::HardBreak,
        Event::TaskListMarker(is_done) => Event::Text(CowStr::Borrowed(if is_done { "☑ " } else { "☐ " })),
        Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
        Event::Start(Tag::Image { dest_url, title, id, .. }) => {
            Event::Start(Tag::Link { link_type: LinkType::Inline, dest_url, title, id })
        }
        Event::End(TagEnd::Image) => Event::End(TagEnd::Link),
        other => other,
    }
}

/// Leaves out what is nested too deep, and links in links.
#[derive(Default)]
struct Flat {
    /// Whether each open element was kept.
    open: Vec<bool>,
    depth: usize,
    links: usize,
}

impl Flat {
    fn keep<'a>(&mut self, event: Event<'a>) -> Option<Event<'a>> {
        match &event {
            Event::Start(tag) => {
                let is_link = matches!(tag, Tag::Link { .. } | Tag::Image { .. });
                let keeps = if is_link { self.links == 0 } else { self.depth < DEPTH_MAX || !nests(tag) };
                self.links += usize::from(is_link);
                self.depth += usize::from(keeps);
                self.open.push(keeps);
                keeps.then_some(event)
            }
            Event::End(end) => {
                self.links -= usize::from(matches!(end, TagEnd::Link | TagEnd::Image));
                let kept = self.open.pop().unwrap_or(false);
                self.depth -= usize::from(kept);
                kept.then_some(event)
            }
            _ => Some(event),
        }
    }
}

/// Whether an element can contain itself, at any depth.
fn nests(tag: &Tag<'_>) -> bool {
    matches!(tag, Tag::BlockQuote(_) | Tag::List(_) | Tag::Item | Tag::Emphasis | Tag::Strong | Tag::Strikethrough)
}

fn is_language(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+#.-_".contains(&byte);
    (1..=LANGUAGE_LEN_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let html = to_html(text).unwrap();
        assert_eq!(html.trim_end(), expected, "{text:?}");
    }

    #[test]
    fn what_answers_are_made_of_becomes_html() {
        check("**a** _b_ ~~c~~ `d`", "<p><strong>a</strong> <em>b</em> <del>c</del> <code>d</code></p>");
        check("a\nb", "<p>a<br>\nb</p>");
        check("3. a\n4. b", "<ol start=\"3\">\n<li>a</li>\n<li>b</li>\n</ol>");
        check("- [x] a", "<ul>\n<li>☑ a</li>\n</ul>");
        check("```rust\nlet a = 1 < 2;\n```", "<pre><code class=\"language-rust\">let a = 1 &lt; 2;\n</code></pre>");
        let table = "<table><thead><tr><th>a</th></tr></thead><tbody>\n<tr><td>1</td></tr>\n</tbody></table>";
        check("| a |\n|:-:|\n| 1 |", table);
    }

    #[test]
    fn links_lead_to_the_web_in_a_new_tab_and_tell_nothing() {
        let link =
            r#"<p><a href="https://a.example/?b=1&amp;c" target="_blank" rel="noopener noreferrer nofollow">x</a></p>"#;
        check("[x](https://a.example/?b=1&c \"t\")", link);
        check("![x](https://a.example/?b=1&c)", link);
        check("[x](/api/threads)", r#"<p><a target="_blank" rel="noopener noreferrer nofollow">x</a></p>"#);
    }

    #[test]
    fn an_image_in_a_link_is_one_link() {
        let html = to_html("[![a](https://i.example/)](https://l.example/)").unwrap();

        assert_eq!(html.matches("<a ").count(), 1);
        assert!(html.contains("l.example"));
    }

    #[test]
    fn html_is_shown_as_text() {
        check("a <b onclick=x>c</b>", "<p>a &lt;b onclick=x&gt;c&lt;/b&gt;</p>");
        check("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>");
    }

    /// What has broken other pages; the browser tests send the same.
    const ATTACKS: &str = include_str!("../../tests/page/xss.txt");

    #[test]
    fn no_attack_leaves_more_than_the_allowed_elements() {
        let attacks = ATTACKS.split("\n---\n");
        assert!(attacks.clone().count() > 30);
        for attack in attacks {
            assert_inert(attack);
        }
    }

    #[test]
    fn no_attack_does_more_while_it_is_only_half_there() {
        for attack in ATTACKS.split("\n---\n") {
            for (cut, _) in attack.char_indices() {
                let growing = growing(&attack[..cut]).unwrap();
                assert_clean(&growing.html, &attack[..cut]);
                assert_clean(&growing.rest, &attack[..cut]);
            }
        }
    }

    #[test]
    fn nothing_is_nested_deeper_than_it_may() {
        for piece in ["> ", "- ", "1. ", "*a ", "**", "**a_", "[", "![", "`", "<b>", "~~", "| a ", "[a](", "\n> - "] {
            let html = to_html(&piece.repeat(10_000)).unwrap();
            // A table and its cells, and a paragraph or a heading, come on top.
            assert!(depth(&html) <= DEPTH_MAX + 6, "{piece:?} is nested {} deep", depth(&html));
        }
        assert_eq!(depth(&to_html(&"> ".repeat(100)).unwrap()), DEPTH_MAX);
    }

    /// How many elements are open at the deepest place.
    fn depth(html: &str) -> usize {
        let mut open: usize = 0;
        let tags = html.split('<').skip(1).filter(|tag| !tag.starts_with("br") && !tag.starts_with("hr"));
        let depths = tags.map(|tag| {
            open = if tag.starts_with('/') { open.saturating_sub(1) } else { open + 1 };
            open
        });
        depths.max().unwrap_or(0)
    }

    #[test]
    fn a_text_that_is_too_long_stays_plain() {
        assert_eq!(to_html(&"a".repeat(TEXT_BYTES_MAX + 1)), None);
    }

    proptest! {
        #[test]
        fn every_text_becomes_inert_html(text in r#"([<>"'&`*_\[\]()!#|~ \n:/=-]|on|a|script|href|javascript|https://x|data){0,60}"#) {
            assert_inert(&text);
        }
    }

    /// The HTML has no element, attribute or scheme beside the allowed ones: cleaning it again changes nothing, and it
    /// contains no `<` that does not begin one of them.
    fn assert_inert(text: &str) {
        assert_clean(&to_html(text).unwrap(), text);
    }

    fn assert_clean(html: &str, text: &str) {
        assert_eq!(ALLOWED.clean(html).to_string(), html, "{text:?}");
        for piece in html.split('<').skip(1) {
            let name: String = piece.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
            let known = ["a", "blockquote", "br", "code", "del", "em", "hr", "li", "ol", "p", "pre", "strong", "ul"];
            let is_known = known.contains(&name.as_str())
                || ["h1", "h2", "h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr"]
                    .contains(&name.as_str());
            assert!(is_known, "{name:?} from {text:?}");
            let tag = piece.split('>').next().unwrap_or_default();
            assert!(!tag.to_ascii_lowercase().contains("javascript:"), "{tag:?} from {text:?}");
            let attributes = tag.split_ascii_whitespace().skip(1).filter_map(|part| part.split_once('='));
            for (attribute, _) in attributes.filter(|(_, value)| value.starts_with('"')) {
                assert!(["href", "class", "start", "target", "rel"].contains(&attribute), "{tag:?} from {text:?}");
            }
        }
    }
}
