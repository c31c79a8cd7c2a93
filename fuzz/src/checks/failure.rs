//! Bytes as an answer that is no success: `status`, headers, a blank line, a body. Whatever they are, the failure that
//! every dialect makes of them says nothing but what stands in weir's own source.

use weir::config::Dialect;
use weir::failure::Failure;
use weir::providers::{Head, registry};

/// Where the words of failures are.
const SOURCES: [&str; 5] = [
    include_str!("../../../src/providers/refused.rs"),
    include_str!("../../../src/providers/anthropic/errors.rs"),
    include_str!("../../../src/providers/gemini/errors.rs"),
    include_str!("../../../src/providers/ollama/errors.rs"),
    include_str!("../../../src/providers/openai_chat/errors.rs"),
];
const PAUSE_MAX_MS: u64 = 60_000;
const ID_LEN_MAX: usize = 128;

/// Reads `answer` as a refusal, in every dialect.
pub fn check(answer: &[u8]) {
    let (head, body) = split(answer);
    for dialect in Dialect::ALL {
        check_failure(&head, &registry::adapter(*dialect).failure(&head, body));
    }
}

fn split(answer: &[u8]) -> (Head, &[u8]) {
    let head_len = answer.windows(2).position(|two| two == b"\n\n");
    let (head, body) = answer.split_at(head_len.unwrap_or(answer.len()));
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.parse().ok()).unwrap_or(500);
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    (Head { status, headers: lines.filter_map(header).collect() }, body.strip_prefix(b"\n\n").unwrap_or(body))
}

fn check_failure(head: &Head, failure: &Failure) {
    let with_status = format!(" (HTTP {})", head.status);
    let sentence = failure.message.strip_suffix(&with_status).unwrap_or(&failure.message);
    let ends = ["\"".to_owned(), format!("{with_status}\"")];
    assert!(!sentence.is_empty() && ends.iter().any(|end| is_ours(sentence, end)), "not our words: {failure:?}");
    if let Some(param) = failure.param.as_deref() {
        assert!(is_ours(param, "\""), "not our words: {failure:?}");
    }
    if let Some(pause_ms) = failure.retry_after_ms {
        assert!((1..=PAUSE_MAX_MS).contains(&pause_ms) && failure.code.retryable(), "{failure:?}");
    }
    if let Some(id) = failure.upstream_request_id.as_deref() {
        let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic());
        assert!((1..=ID_LEN_MAX).contains(&id.len()) && is_plain, "{failure:?}");
    }
}

/// Whether a text stands as a literal in the sources.
fn is_ours(text: &str, end: &str) -> bool {
    let literal = format!("\"{text}{end}");
    SOURCES.iter().any(|source| source.contains(&literal))
}
