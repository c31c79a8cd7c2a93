//! Script: what the demo will say to one request, frame by frame, each with the wait before it. Pure: plays no time.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::prose::{Dice, Prose, SOURCES, Shape, Token};
use super::wishes::{Fate, Pace, Wishes};
use crate::providers::json;

/// A token's wait when the wish is to be slow.
const SLOW: Duration = Duration::from_millis(400);

/// What happens next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beat {
    /// The wait before it.
    pub(super) wait: Wait,
    /// One or more whole frames.
    pub(super) frames: Bytes,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Only until the others had their turn.
    Yield,
    /// This long.
    Pause(Duration),
    /// The demo has fallen silent.
    Forever,
}

/// The answer to one request.
#[derive(Debug)]
pub(super) struct Script {
    id: String,
    model: String,
    wishes: Wishes,
    dice: Dice,
    stage: Stage,
    thoughts: VecDeque<Token>,
    prose: Prose,
    /// The words of the text: at least these, then to the end of the sentence; exactly these if they were wished for.
    words: usize,
    words_said: usize,
    tool: Option<ToolCall>,
    /// What `max_tokens` leaves.
    tokens_left: u64,
    prompt_tokens: u64,
    reasoning_tokens: u64,
    completion_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Think,
    Speak,
    Call,
    Finish(&'static str),
    Over,
}

/// The call of a tool that remains to be said.
#[derive(Debug)]
struct ToolCall {
    name: String,
    /// The pieces of its arguments that remain.
    pieces: VecDeque<String>,
    begun: bool,
}

impl Script {
    /// The script for the body of a call.
    pub(super) fn new(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let messages = json::items(&body, "messages");
        let asked = messages.iter().rfind(|message| json::text(message, "role") == Some("user"));
        let wishes = Wishes::of(&asked.map(text_of).unwrap_or_default());
        let seed = {
            let mut seed = DefaultHasher::new();
            messages.hash(&mut seed);
            seed.finish()
        };
        let mut dice = Dice::new(seed);
        let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|key| json::get(&body, key));
        let is_answered = messages.last().and_then(|last| json::text(last, "role")) == Some("tool");
        let tool = json::items(&body, "tools").first().filter(|_| wishes.use_tool && !is_answered);
        let shape = Shape { list: wishes.list, table: wishes.table, code: wishes.code, cites: wishes.cite };
        let words = 90 + usize::try_from(dice.roll(80)).unwrap_or(0) + shape.words();
        Self {
            id: format!("demo-{seed:016x}"),
            model: json::text(&body, "model").unwrap_or("demo").to_owned(),
            thoughts: if wishes.think { Prose::thoughts(&mut dice, &wishes.topic) } else { VecDeque::new() },
            prose: Prose::new(dice.clone(), &wishes.topic, shape),
            words: wishes.words.unwrap_or(words),
            words_said: 0,
            tool: tool.map(|tool| ToolCall::new(tool, &wishes.topic)),
            tokens_left: limit.and_then(json::count).unwrap_or(u64::MAX),
            prompt_tokens: messages.iter().map(|message| text_of(message).len() as u64 / 4 + 4).sum(),
            reasoning_tokens: 0,
            completion_tokens: 0,
            stage: Stage::Begin,
            wishes,
            dice,
        }
    }

    /// After which time the request is refused, if that was wished for.
    pub(super) fn refuses_after(&self) -> Option<Duration> {
        (self.wishes.fate == Fate::Refuse).then_some(self.wishes.wait)
    }

    /// What happens next; `None` at the end of the body.
    pub(super) fn next(&mut self) -> Option<Beat> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Think;
                Some(self.begin())
            }
            Stage::Think => match self.thoughts.pop_front() {
                Some(thought) => Some(self.say("reasoning_content", &thought.text)),
                None => {
                    self.stage = if self.tool.is_some() { Stage::Call } else { Stage::Speak };
                    self.next()
                }
            },
            Stage::Speak => Some(self.speak()),
            Stage::Call => Some(self.call()),
            Stage::Finish(reason) => {
                self.stage = Stage::Over;
                Some(self.finish(reason))
            }
            Stage::Over => None,
        }
    }

    fn begin(&mut self) -> Beat {
        let usual = Duration::from_millis(230 + self.dice.roll(200));
        let wait = match self.wishes.pace {
            Pace::Fast if self.wishes.wait.is_zero() => Wait::Yield,
            Pace::Fast => Wait::Pause(self.wishes.wait),
            Pace::Usual | Pace::Slow => Wait::Pause(self.wishes.wait + usual),
        };
        let mut frames = self.chunk(&json!({"role": "assistant", "content": ""}), None, Value::Null);
        if self.wishes.cite {
            let sources: Value = SOURCES.iter().map(|(url, title)| json!({"url": url, "title": title})).collect();
            frames += &self.chunk(&json!({}), None, json!({"search_results": sources}));
        }
        Beat { wait, frames: frames.into() }
    }

    fn speak(&mut self) -> Beat {
        if self.words_said >= self.words.div_ceil(2) {
            match self.wishes.fate {
                Fate::BreakHalfway => return self.break_off(),
                Fate::Stall => return Beat { wait: Wait::Forever, frames: Bytes::new() },
                Fate::Complete | Fate::Refuse => {}
            }
        }
        let mut token = self.prose.token();
        self.words_said += 1;
        let exact = self.wishes.words.is_some();
        if self.words_said >= self.words && (exact || token.ends) {
            self.stage = Stage::Finish("stop");
            if !token.ends {
                let end = token.text.trim_end_matches(|char: char| char.is_ascii_punctuation()).len();
                token.text.replace_range(end.., ".");
            }
        }
        self.say("content", &token.text)
    }

    /// One token of text. The limit may end the answer here.
    fn say(&mut self, field: &str, text: &str) -> Beat {
        let wait = self.pace();
        self.completion_tokens += 1;
        if self.stage == Stage::Think {
            self.reasoning_tokens += 1;
        }
        self.spend();
        let frames = self.chunk(&json!({ field: text }), None, Value::Null);
        Beat { wait, frames: frames.into() }
    }

    /// Takes one token off the limit.
    fn spend(&mut self) {
        self.tokens_left = self.tokens_left.saturating_sub(1);
        if self.tokens_left == 0 && !matches!(self.stage, Stage::Finish(_)) {
            self.stage = Stage::Finish("length");
        }
    }

    fn call(&mut self) -> Beat {
        let wait = self.pace();
        let Some(tool) = &mut self.tool else {
            self.stage = Stage::Finish("stop");
            return Beat { wait, frames: Bytes::new() };
        };
        let piece = if std::mem::replace(&mut tool.begun, true) {
            json!({"index": 0, "function": {"arguments": tool.pieces.pop_front()}})
        } else {
            let id = format!("call_{}", &self.id["demo-".len()..]);
            json!({"index": 0, "id": id, "type": "function", "function": {"name": tool.name, "arguments": ""}})
        };
        if tool.pieces.is_empty() {
            self.stage = Stage::Finish("tool_calls");
        }
        self.completion_tokens += 1;
        self.spend();
        let frames = self.chunk(&json!({"tool_calls": [piece]}), None, Value::Null);
        Beat { wait, frames: frames.into() }
    }

    fn break_off(&mut self) -> Beat {
        self.stage = Stage::Over;
        let wait = self.pace();
        let error = json!({"error": {"message": "the demo was asked to fail", "type": "server_error", "code": 500}});
        Beat { wait, frames: format!("data: {error}\n\n").into() }
    }

    fn finish(&mut self, reason: &str) -> Beat {
        let wait = self.pace();
        let usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        });
        let mut frames = self.chunk(&json!({}), Some(reason), Value::Null);
        frames += &self.chunk(&json!({}), None, json!({"choices": [], "usage": usage}));
        frames += "data: [DONE]\n\n";
        Beat { wait, frames: frames.into() }
    }

    fn pace(&mut self) -> Wait {
        match self.wishes.pace {
            Pace::Fast => Wait::Yield,
            Pace::Slow => Wait::Pause(SLOW),
            Pace::Usual => Wait::Pause(Duration::from_millis(12 + self.dice.roll(14))),
        }
    }

    /// One frame; `more` are further fields, which win.
    fn chunk(&self, delta: &Value, finish: Option<&str>, more: Value) -> String {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        });
        if let (Value::Object(chunk), Value::Object(more)) = (&mut chunk, more) {
            chunk.extend(more);
        }
        format!("data: {chunk}\n\n")
    }
}

impl ToolCall {
    /// A call of `tool` with arguments that fit its schema: every required property, filled with what there is.
    fn new(tool: &Value, topic: &str) -> Self {
        let function = json::get(tool, "function").unwrap_or(tool);
        let schema = json::get(function, "parameters").unwrap_or(&Value::Null);
        let properties = json::get(schema, "properties").unwrap_or(&Value::Null);
        let names = json::items(schema, "required").iter().filter_map(Value::as_str);
        let arguments = names.map(|name| (name.to_owned(), example(&properties[name], topic)));
        let arguments = Value::Object(arguments.collect()).to_string();
        let chars: Vec<char> = arguments.chars().collect();
        Self {
            name: json::text(function, "name").unwrap_or("tool").to_owned(),
            pieces: chars.chunks(6).map(|piece| piece.iter().collect()).collect(),
            begun: false,
        }
    }
}

/// A value that fits a property's schema.
fn example(schema: &Value, topic: &str) -> Value {
    if let Some(first) = json::items(schema, "enum").first() {
        return first.clone();
    }
    match json::text(schema, "type") {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!(topic),
    }
}

/// What a message says, without its images.
fn text_of(message: &Value) -> String {
    match json::get(message, "content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| json::text(part, "text")).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
