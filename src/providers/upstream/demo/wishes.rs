//! Wishes: what the last user message asks of the demo, in plain English.
//!
//! | wish | effect |
//! |---|---|
//! | "write 300 words", "a 300-word essay" | exactly that many, 1 to 20 000 |
//! | "be slow" · "be fast" | 400 ms a token · no waits |
//! | "think" | reasoning first |
//! | "wait 5 seconds" | that much before anything comes, at most 120 s |
//! | "code", "table", "list" | Markdown of that kind |
//! | "cite", "sources" | citations |
//! | "use a tool" | calls the first of the request's tools |
//! | "fail" · "fail halfway" · "stall" | refused with a 503 · broken off by an error · silent in the middle |
//!
//! Failing and stalling must be commands ("fail", "please stall", "… and fail"): people do ask why gates fail.

use std::time::Duration;

/// The longest answer that can be wished for, in words.
pub(super) const WORDS_MAX: usize = 20_000;
/// The longest wait that can be wished for.
const WAIT_MAX_S: u64 = 120;
/// How much of a message is read.
const MESSAGE_CHARS_MAX: usize = 4_000;

/// Words that may stand beside a command.
const FILLERS: [&str; 8] = ["and", "immediately", "just", "now", "please", "right", "then", "you"];
/// Words that are nobody's topic.
const NO_TOPIC: &[&str] = &[
    "a", "about", "an", "and", "answer", "are", "be", "can", "cite", "code", "could", "describe", "do", "does",
    "explain", "fail", "fast", "for", "give", "halfway", "hello", "hi", "how", "i", "in", "is", "it", "list", "me",
    "of", "on", "please", "show", "slow", "some", "sources", "stall", "table", "tell", "that", "the", "then", "think",
    "this", "to", "tool", "use", "wait", "was", "what", "when", "where", "which", "who", "why", "with", "word",
    "words", "would", "write", "you", "your",
];

/// How fast tokens come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Usual,
    Slow,
    Fast,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Complete,
    Refuse,
    BreakHalfway,
    Stall,
}

/// What a message wishes for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) words: Option<usize>,
    pub(super) pace: Pace,
    pub(super) fate: Fate,
    pub(super) wait: Duration,
    pub(super) think: bool,
    pub(super) code: bool,
    pub(super) table: bool,
    pub(super) list: bool,
    pub(super) cite: bool,
    pub(super) use_tool: bool,
    /// What the message is about, in a few of its own words.
    pub(super) topic: String,
}

impl Wishes {
    /// Reads a message.
    pub(super) fn of(message: &str) -> Self {
        let text: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
        let lower = text.to_lowercase();
        let words: Vec<&str> = words(&lower).collect();
        let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
        let says = |phrase: &str| {
            let phrase: Vec<&str> = phrase.split(' ').collect();
            words.windows(phrase.len()).any(|window| window == phrase)
        };
        let commands = |verb: &str| {
            ["and", "then", "please"].iter().any(|before| says(&format!("{before} {verb}")))
                || lower.split(['.', ',', ';', ':', '!', '?', '\n']).any(|clause| is_command(clause, verb))
        };
        Self {
            words: number_before(&words, &["word", "words"]).map(|wished| wished.clamp(1, WORDS_MAX)),
            pace: match (says("be slow"), says("be fast")) {
                (true, _) => Pace::Slow,
                (_, true) => Pace::Fast,
                _ => Pace::Usual,
            },
            fate: if says("fail halfway") {
                Fate::BreakHalfway
            } else if commands("fail") {
                Fate::Refuse
            } else if commands("stall") {
                Fate::Stall
            } else {
                Fate::Complete
            },
            wait: wait(&words),
            think: has(&["think"]),
            code: has(&["code"]),
            table: has(&["table"]),
            list: has(&["list"]),
            cite: has(&["cite", "citations", "sources"]),
            use_tool: ["use a tool", "use the tool", "use your tools", "call a tool"].into_iter().any(says),
            topic: topic(&text),
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '\'').filter(|word| !word.is_empty())
}

/// Whether a clause says nothing but `verb`.
fn is_command(clause: &str, verb: &str) -> bool {
    let mut said = false;
    words(clause).all(|word| {
        said |= word == verb;
        word == verb || FILLERS.contains(&word)
    }) && said
}

/// The number in front of one of the `units`, as large as a text can make it.
fn number_before(words: &[&str], units: &[&str]) -> Option<usize> {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(usize::MAX));
    words.windows(2).find_map(|pair| number(pair[0]).filter(|_| units.contains(&pair[1])))
}

fn wait(words: &[&str]) -> Duration {
    let at = words.iter().position(|word| *word == "wait").map_or(words.len(), |at| at + 1);
    let window = &words[at..words.len().min(at + 3)];
    let seconds = number_before(window, &["s", "second", "seconds"]).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX).min(WAIT_MAX_S))
}

/// What follows "about", else the words that carry meaning; a few of them, without any markup.
fn topic(text: &str) -> String {
    let clause = |text: &str| text.split(['.', ',', ';', '!', '?', '\n']).next().unwrap_or_default().to_owned();
    let about = text.split_once(" about ").map(|(_, rest)| clause(rest)).unwrap_or_default();
    let mut chosen: Vec<&str> = words(&about).take(6).collect();
    if chosen.is_empty() {
        let meaning = |word: &&str| {
            !NO_TOPIC.contains(&word.to_lowercase().as_str()) && !word.bytes().all(|byte| byte.is_ascii_digit())
        };
        chosen = words(text).filter(meaning).take(4).collect();
    }
    chosen.retain(|word| word.chars().count() <= 30);
    if chosen.is_empty() { "streams".to_owned() } else { chosen.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_question_wishes_for_nothing() {
        let wishes = Wishes::of("Why do sluice gates fail, and when does a pump stall?");

        let expected = Wishes {
            words: None,
            pace: Pace::Usual,
            fate: Fate::Complete,
            wait: Duration::ZERO,
            think: false,
            code: false,
            table: false,
            list: false,
            cite: false,
            use_tool: false,
            topic: "sluice gates pump".into(),
        };
        assert_eq!(wishes, expected);
    }

    #[test]
    fn the_number_of_words_is_bounded() {
        let words = |text: &str| Wishes::of(text).words;

        assert_eq!(words("Write 300 words about weirs."), Some(300));
        assert_eq!(words("a 300-word essay"), Some(300));
        assert_eq!(words("write 0 words"), Some(1));
        assert_eq!(words("write 99999999999999999999999 words"), Some(WORDS_MAX));
        assert_eq!(words("write some words"), None);
    }

    #[test]
    fn fates_are_commands() {
        let fate = |text: &str| Wishes::of(text).fate;
        for refused in ["fail", "Fail!", "Please fail now.", "Tell me of rivers, then fail"] {
            assert_eq!(fate(refused), Fate::Refuse, "{refused}");
        }
        for broken in ["fail halfway", "Write 50 words and fail halfway, please"] {
            assert_eq!(fate(broken), Fate::BreakHalfway, "{broken}");
        }
        assert_eq!(fate("Talk about locks and stall."), Fate::Stall);
        assert_eq!(fate("Did the gate fail?"), Fate::Complete);
    }

    #[test]
    fn waiting_takes_seconds_and_has_an_end() {
        let wait_s = |text: &str| Wishes::of(text).wait.as_secs();

        assert_eq!(wait_s("wait 5 seconds"), 5);
        assert_eq!(wait_s("Please wait for 1 second, then answer"), 1);
        assert_eq!(wait_s("wait 5000 seconds"), WAIT_MAX_S);
        assert_eq!(wait_s("wait a moment; it takes 7 seconds"), 0);
        assert_eq!(wait_s("wait"), 0);
    }

    #[test]
    fn the_topic_is_short_and_carries_no_markup() {
        let topic = |text: &str| Wishes::of(text).topic;

        assert_eq!(topic("Write 9 words about <b>old weirs</b>. Be fast."), "b old weirs b");
        assert_eq!(topic("What is a fish ladder?"), "fish ladder");
        assert_eq!(topic("hello"), "streams");
        assert_eq!(topic(&"x".repeat(5_000)), "streams");
    }
}
