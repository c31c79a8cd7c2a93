//! Images: what is inside a `data:` URL, for the dialects that want it in parts.

/// The media type and the base64 text of a `data:` URL; `None` when it is none, or not in base64.
pub(super) fn inline(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mut words = head.split(';');
    let media_type = words.next().filter(|word| !word.is_empty())?;
    words.next_back().filter(|word| word.eq_ignore_ascii_case("base64"))?;
    Some((media_type, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_has_a_type_and_base64_text() {
        assert_eq!(inline("data:image/png;base64,iVBO"), Some(("image/png", "iVBO")));
        assert_eq!(inline("data:image/png;name=a;base64,iVBO"), Some(("image/png", "iVBO")));
        for other in ["https://h/i.png", "data:image/png,raw", "data:;base64,iVBO", "data:base64,iVBO", "data:"] {
            assert_eq!(inline(other), None, "{other}");
        }
    }
}
