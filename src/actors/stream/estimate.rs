//! Estimate: what an answer is likely to cost, for when its provider does not say. Pure.
//!
//! Four characters make a token, as in English text, roughly; images are not counted.

use crate::chat::ChatRequest;
use crate::event::Usage;
use crate::fanout::Transcript;

const CHARS_PER_TOKEN: u64 = 4;

/// The tokens of a question: instructions, conversation and tools.
pub(super) fn of_prompt(request: &ChatRequest) -> u64 {
    let said = request.messages.iter().map(|message| {
        let calls = message.tool_calls.iter().map(|call| chars(&call.name) + chars(&call.arguments));
        chars(&message.content.text()) + calls.sum::<u64>()
    });
    let tools = request.tools.iter().map(|tool| chars(&tool.to_string()));
    let instructions = request.system.as_deref().map_or(0, chars);
    tokens(said.chain(tools).sum::<u64>() + instructions)
}

/// What the provider said of the cost, else an estimate, if the answer says anything at all.
pub(super) fn of_answer(answer: &Transcript) -> Option<Usage> {
    let output = output(answer);
    answer.usage.or_else(|| (output > 0).then(|| usage(answer.prompt_tokens, output)))
}

/// The same for an answer that was stopped: its question costs something as soon as the provider works on it.
pub(super) fn of_stopped(answer: &Transcript) -> Option<Usage> {
    let (input, output) = (answer.prompt_tokens, output(answer));
    answer.usage.or_else(|| (input + output > 0).then(|| usage(input, output)))
}

fn output(answer: &Transcript) -> u64 {
    let calls = answer.tool_calls.iter().map(|call| chars(&call.name) + chars(&call.arguments));
    tokens(chars(&answer.text) + chars(&answer.reasoning) + chars(&answer.refusal) + calls.sum::<u64>())
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input, output, total: input + output, estimated: true, ..Usage::default() }
}

fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

fn tokens(chars: u64) -> u64 {
    chars.div_ceil(CHARS_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatMessage, ProviderName, Role};

    fn answer(text: &str, prompt_tokens: u64) -> Transcript {
        let mut answer = Transcript::default();
        answer.text.push_str(text);
        answer.prompt_tokens = prompt_tokens;
        answer
    }

    #[test]
    fn four_characters_of_anything_that_is_said_make_a_token() {
        let request = ChatRequest {
            provider: ProviderName::new("p"),
            model: "m".into(),
            system: Some("äöüß".into()),
            messages: vec![ChatMessage::text(Role::User, "12345678"), ChatMessage::text(Role::Assistant, "1")],
            temperature: None,
            max_tokens: None,
            tools: vec![serde_json::json!({})],
            extra: serde_json::Map::new(),
        };

        assert_eq!(of_prompt(&request), 4);
        let mut said = answer("hello", 4);
        said.reasoning.push_str("hmm");
        let expected = Usage { input: 4, output: 2, total: 6, estimated: true, ..Usage::default() };
        assert_eq!(of_answer(&said), Some(expected));
    }

    #[test]
    fn what_the_provider_says_is_not_estimated() {
        let usage = Some(Usage { output: 7, ..Usage::default() });
        let mut said = answer("hello", 4);
        said.usage = usage;

        assert_eq!((of_answer(&said), of_stopped(&said)), (usage, usage));
    }

    #[test]
    fn a_question_alone_costs_something_when_its_answer_is_stopped_but_not_when_it_failed() {
        let nothing = answer("", 4);

        assert_eq!(of_answer(&nothing), None);
        assert_eq!(of_stopped(&nothing).map(|usage| (usage.input, usage.output)), Some((4, 0)));
        assert_eq!(of_stopped(&answer("", 0)), None, "nobody has been asked");
    }
}
