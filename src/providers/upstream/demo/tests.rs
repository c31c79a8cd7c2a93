//! The demo as weir hears it: through the adapter, in paused time.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, timeout};

use super::Demo;
use crate::config::Dialect;
use crate::event::{Citation, Event, FinishReason, ToolCall, Usage};
use crate::failure::{Code, Failure};
use crate::providers::answer::AnswerDecoder;
use crate::providers::upstream::Transport;
use crate::providers::{Call, Flow, Piece, registry};

/// Everything that an answer has said, and when.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    citations: Vec<Citation>,
    usage: Option<Usage>,
    /// When each piece of text or reasoning came, in milliseconds from the start.
    at_ms: Vec<u128>,
    ended: Option<Result<FinishReason, Failure>>,
}

impl Heard {
    fn take(&mut self, piece: Piece<'_>, at_ms: u128) {
        let Piece::Event(event) = piece else { return };
        if event.is_content() {
            self.at_ms.push(at_ms);
        }
        match event {
            Event::Delta { delta } => self.text.push_str(&delta),
            Event::Reasoning { delta, .. } => self.reasoning.push_str(&delta),
            Event::ToolCall { call, valid, .. } => {
                assert!(valid);
                self.calls.push(call);
            }
            Event::Citation { items } => self.citations.extend(items),
            Event::Usage { usage } => self.usage = Some(usage),
            _ => {}
        }
    }

    fn finish(&self) -> FinishReason {
        *self.ended.as_ref().expect("it has ended").as_ref().expect("it has ended well")
    }

    fn failure(&self) -> Code {
        self.ended.as_ref().expect("it has ended").as_ref().expect_err("it has failed").code
    }

    fn words(&self) -> usize {
        self.text.split_whitespace().count()
    }
}

async fn hear(body: Value) -> Heard {
    let adapter = registry::adapter(Dialect::Demo).unwrap();
    let started = Instant::now();
    let call = Call { path: String::new(), headers: vec![], body: body.to_string().into_bytes() };
    let mut opened = Demo::new().open(call).await.unwrap();
    let mut heard = Heard::default();
    if opened.head.status != 200 {
        let body = opened.body.next().await.unwrap().unwrap();
        heard.at_ms.push(started.elapsed().as_millis());
        heard.ended = Some(Err(adapter.failure(&opened.head, &body)));
        return heard;
    }
    let mut decoder = AnswerDecoder::new(&*adapter);
    let ended = loop {
        let Ok(next) = timeout(Duration::from_secs(3_600), opened.body.next()).await else {
            return heard;
        };
        let mut out = |piece: Piece<'_>| heard.take(piece, started.elapsed().as_millis());
        match next {
            Some(bytes) => match decoder.push(&bytes.unwrap(), &mut out) {
                Ok(Flow::More) => {}
                Ok(Flow::Ended) => break Ok(decoder.finish().reason),
                Err(failure) => break Err(failure),
            },
            None => break decoder.end(&mut out).map(|()| decoder.finish().reason),
        }
    };
    heard.ended = Some(ended);
    heard
}

async fn ask(text: &str) -> Heard {
    hear(json!({"model": "demo", "messages": [{"role": "user", "content": text}]})).await
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_about_the_question_and_believably_paced() {
    let heard = ask("What is a fish ladder?").await;

    assert_eq!(heard.finish(), FinishReason::Stop);
    assert!(heard.text.to_lowercase().contains("fish ladder") && heard.text.ends_with('.'), "{}", heard.text);
    assert!((90..260).contains(&heard.words()), "{}", heard.words());
    assert!(heard.text.contains("\n\n"));
    assert!((240..=460).contains(&heard.at_ms[0]), "first token after {} ms", heard.at_ms[0]);
    for pair in heard.at_ms.windows(2) {
        assert!((11..=27).contains(&(pair[1] - pair[0])), "{pair:?}");
    }
    let usage = heard.usage.unwrap();
    assert_eq!(usage.output, heard.words() as u64);
    assert!(usage.input > 0 && usage.total == usage.input + usage.output);
}

#[tokio::test(start_paused = true)]
async fn the_same_prompt_gets_the_same_answer_at_the_same_pace() {
    let (first, second, other) = (ask("locks?").await, ask("locks?").await, ask("dams?").await);

    assert_eq!((&first.text, &first.at_ms), (&second.text, &second.at_ms));
    assert_ne!(first.text, other.text);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_words_is_kept_exactly() {
    for words in [1, 2, 10, 300, 20_000] {
        let heard = ask(&format!("Write {words} words about weirs. Be fast.")).await;

        assert_eq!(heard.words(), words);
        assert_eq!(heard.finish(), FinishReason::Stop);
        assert!(heard.text.ends_with('.'), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_cuts_the_answer() {
    for name in ["max_tokens", "max_completion_tokens"] {
        let messages = json!([{"role": "user", "content": "Think, then write 50 words"}]);
        let heard = hear(json!({"messages": messages, name: 60})).await;

        assert_eq!(heard.finish(), FinishReason::Length);
        let usage = heard.usage.unwrap();
        assert_eq!((usage.output, usage.output - usage.reasoning), (60, heard.words() as u64));
    }
    let messages = json!([{"role": "user", "content": "write 5 words"}]);
    assert_eq!(hear(json!({"messages": messages, "max_tokens": 5})).await.finish(), FinishReason::Stop);
}

#[tokio::test(start_paused = true)]
async fn slow_is_slow_fast_is_fast_and_waiting_comes_first() {
    let slow = ask("be slow and write 5 words").await;
    let fast = ask("be fast").await;
    let waiting = ask("Wait 7 seconds. Be fast.").await;

    assert!(slow.at_ms.windows(2).all(|pair| (399..=401).contains(&(pair[1] - pair[0]))), "{:?}", slow.at_ms);
    assert_eq!(fast.at_ms.last(), Some(&0));
    assert_eq!((waiting.at_ms[0], waiting.at_ms.last()), (7_000, Some(&7_000)));
}

#[tokio::test(start_paused = true)]
async fn thoughts_come_before_the_text() {
    let heard = ask("Think about eels").await;

    assert!(heard.reasoning.split_whitespace().count() > 20 && !heard.text.is_empty());
    assert!(heard.usage.unwrap().reasoning > 20);
    assert_eq!(ask("Tell of eels").await.reasoning, "");
}

#[tokio::test(start_paused = true)]
async fn markdown_comes_whole() {
    let heard = ask("A list, a table and some code, please").await;

    for mark in
        ["\n\n- **Above", "\n| Gate | 0.8 m |", "\n```rust\n", "    surplus.min(gate.channel_max_mm)\n}\n```\n\n"]
    {
        assert!(heard.text.contains(mark), "{mark:?} in {}", heard.text);
    }
}

#[tokio::test(start_paused = true)]
async fn sources_are_cited_and_referred_to() {
    let heard = ask("Cite your sources on gauges").await;

    let numbers: Vec<u32> = heard.citations.iter().map(|citation| citation.n).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(heard.text.contains(".[1]"), "{}", heard.text);
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_called_once_with_what_it_requires() {
    let tool = json!({"type": "function", "function": {"name": "gauge", "parameters": {
        "properties": {"river": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["m", "ft"]}},
        "required": ["river", "days", "unit"],
    }}});
    let question = json!({"role": "user", "content": "Use a tool to tell me about the Aare"});
    let result = json!({"role": "tool", "tool_call_id": "c", "content": "3"});

    let called = hear(json!({"messages": [question], "tools": [tool]})).await;
    let answered = hear(json!({"messages": [question, result], "tools": [tool]})).await;
    let without = hear(json!({"messages": [question]})).await;

    assert_eq!(called.finish(), FinishReason::ToolCalls);
    assert_eq!(called.calls[0].name, "gauge");
    assert_eq!(called.calls[0].arguments, r#"{"days":1,"river":"the Aare","unit":"m"}"#);
    for other in [answered, without] {
        assert_eq!((other.finish(), other.calls.len()), (FinishReason::Stop, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn it_fails_when_it_is_told_to() {
    let refused = ask("fail").await;
    let broken = ask("Write 40 words and fail halfway").await;

    assert_eq!(refused.failure(), Code::UpstreamOverloaded);
    assert_eq!(refused.ended.unwrap().unwrap_err().retry_after_ms, Some(1_000));
    assert_eq!((broken.failure(), broken.words()), (Code::UpstreamError, 20));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_answer_stays_silent_for_ever() {
    let heard = ask("Write 40 words, then stall").await;

    assert_eq!((heard.words(), heard.ended), (20, None));
}

#[tokio::test(start_paused = true)]
async fn any_body_gets_an_answer() {
    for body in [json!(null), json!({"messages": 3}), json!({"messages": [{"role": "user"}], "max_tokens": "x"})] {
        assert_eq!(hear(body).await.finish(), FinishReason::Stop);
    }
    let parts = json!([{"type": "text", "text": "write 3 words"}, {"type": "image_url", "image_url": {"url": "u"}}]);
    assert_eq!(hear(json!({"messages": [{"role": "user", "content": parts}]})).await.words(), 3);
}
