//! Text: what the mock says, token by token. A function of the prompt, so that a test can compute the whole.

/// Words with every kind of byte that breaks careless framing: quotes, backslashes, line ends, two to four bytes a
/// character, U+2028, a blank line, what looks like a field of an event stream.
const WORDS: [&str; 24] = [
    "river",
    "weir",
    "déjà",
    "\"quoted\"",
    "日本語",
    "back\\slash",
    "🦀",
    "naïve",
    "line\nbreak",
    "Ω",
    "data: x",
    "tab\there",
    "Zürich",
    "blank\n\nline",
    "e\u{301}",
    "</script>",
    "sep\u{2028}arator",
    "crlf\r\nhere",
    "नमस्ते",
    "👩‍👩‍👧",
    "[DONE]",
    "{\"a\":1}",
    "&amp;",
    "fish",
];

/// The tokens of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    seed: u64,
    bytes: usize,
}

impl Voice {
    /// The voice that answers `prompt` in tokens of `bytes` bytes each; 0: of their natural length.
    pub fn new(prompt: &str, bytes: usize) -> Self {
        Self { seed: fnv1a(prompt.as_bytes()), bytes }
    }

    /// The `n`-th token: its number, so that a lost or doubled one can be named, and a word.
    pub fn token(&self, n: u32) -> String {
        let mut state = self.seed ^ u64::from(n);
        let mut text = format!("{n}:");
        if self.bytes == 0 {
            text.push_str(word(&mut state));
            text.push(' ');
            return text;
        }
        while text.len() < self.bytes {
            text.push_str(word(&mut state));
        }
        let fits = (0..=self.bytes).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(fits.unwrap_or_default());
        text.extend(std::iter::repeat_n('.', self.bytes - text.len()));
        text
    }

    /// The first `count` tokens together.
    pub fn tokens(&self, count: u32) -> String {
        (0..count).map(|n| self.token(n)).collect()
    }
}

fn word(state: &mut u64) -> &'static str {
    WORDS[usize::try_from(mix(state) % WORDS.len() as u64).expect("less than the number of words")]
}

/// The FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One step of SplitMix64.
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_prompt_gives_the_same_text_and_another_prompt_another() {
        let text = Voice::new("hello", 0).tokens(50);

        assert_eq!(Voice::new("hello", 0).tokens(50), text);
        assert_ne!(Voice::new("hallo", 0).tokens(50), text);
    }

    #[test]
    fn a_token_has_exactly_the_bytes_asked_for() {
        let voice = |bytes| Voice::new("hello", bytes);

        assert!((1..200).all(|bytes| (0..50).all(|n| voice(bytes).token(n).len() == bytes)));
    }

    #[test]
    fn a_text_has_characters_of_every_length() {
        let text = Voice::new("hello", 0).tokens(200);

        for bytes in 1..=4 {
            assert!(text.chars().any(|c| c.len_utf8() == bytes), "none of {bytes} bytes");
        }
    }
}
