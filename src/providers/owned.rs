//! Owned: signatures go back to the provider that they came from, and to nobody else.
//!
//! A signature is a blob that only its maker can read. A thread may change providers, and two providers may speak one
//! dialect: so each signature is kept with the mark of its maker, and the next turn takes along only those with the mark
//! of the provider that it goes to. One without a mark is anybody's, hence nobody's.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::{Adapter, Call, Decode, Flow, Frame, Framing, Head, Piece, json};
use crate::chat::ChatRequest;
use crate::config::Provider;
use crate::event::Finish;
use crate::failure::Failure;

/// Where the mark stands in a kept signature.
const MARK: &str = "made_by";

/// An adapter that speaks for one provider.
pub(super) struct Owned {
    adapter: Arc<dyn Adapter>,
    mark: Arc<str>,
}

impl Owned {
    /// The adapter of this provider. Its mark changes with the server: a name may be given to another one.
    pub(super) fn new(adapter: Arc<dyn Adapter>, provider: &Provider) -> Self {
        let Provider { name, dialect, base_url, .. } = provider;
        Self { adapter, mark: format!("{name} {dialect} {base_url}").into() }
    }

    fn made(&self, signature: &Value) -> bool {
        json::text(signature, MARK) == Some(&*self.mark)
    }

    /// The request without the signatures of others.
    fn without_others<'r>(&self, request: &'r ChatRequest) -> Cow<'r, ChatRequest> {
        let mut signatures = request.messages.iter().flat_map(|message| &message.opaque);
        if signatures.all(|signature| self.made(signature)) {
            return Cow::Borrowed(request);
        }
        let mut request = request.clone();
        request.messages.iter_mut().for_each(|message| message.opaque.retain(|signature| self.made(signature)));
        Cow::Owned(request)
    }
}

impl Adapter for Owned {
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure> {
        self.adapter.encode(&self.without_others(request))
    }

    fn authorization(&self, key: &str) -> (&'static str, String) {
        self.adapter.authorization(key)
    }

    fn framing(&self) -> Framing {
        self.adapter.framing()
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Marking { decode: self.adapter.decoder(), mark: Arc::clone(&self.mark) })
    }

    fn failure(&self, head: &Head, body: &[u8]) -> Failure {
        self.adapter.failure(head, body)
    }

    fn cancel_call(&self, upstream_id: &str) -> Option<Call> {
        self.adapter.cancel_call(upstream_id)
    }

    fn warm_path(&self) -> Option<&'static str> {
        self.adapter.warm_path()
    }

    fn warm_headers(&self) -> Vec<(&'static str, String)> {
        self.adapter.warm_headers()
    }
}

/// Marks the signatures of one answer.
struct Marking {
    decode: Box<dyn Decode>,
    mark: Arc<str>,
}

impl Decode for Marking {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure> {
        let mark = &self.mark;
        self.decode.frame(frame, &mut |piece| out(marked(piece, mark)))
    }

    fn end(&mut self, out: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure> {
        let mark = &self.mark;
        self.decode.end(&mut |piece| out(marked(piece, mark)))
    }

    fn finish(&self) -> Finish {
        self.decode.finish()
    }
}

fn marked<'p>(piece: Piece<'p>, mark: &str) -> Piece<'p> {
    match piece {
        Piece::Opaque(Value::Object(mut signature)) => {
            signature.insert(MARK.to_owned(), mark.into());
            Piece::Opaque(Value::Object(signature))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::chat::{ChatMessage, ProviderName, Role};
    use crate::config::{Config, Dialect};
    use crate::providers::answer::AnswerDecoder;
    use crate::providers::registry;

    /// Providers of which some speak the same dialect.
    fn adapters() -> BTreeMap<String, Arc<dyn Adapter>> {
        let file = "
            providers.one = { dialect = 'openai_responses', base_url = 'https://one.test/v1' }
            providers.two = { dialect = 'openai_responses', base_url = 'https://two.test/v1' }
            providers.claude = { dialect = 'anthropic', base_url = 'https://claude.test' }
            providers.router = { dialect = 'openrouter' }
        ";
        let config = Config::load(Some(("f", file)), []).unwrap();
        let adapter = |(name, provider): (&String, &Provider)| (name.clone(), registry::of(provider));
        config.providers.iter().map(adapter).collect()
    }

    /// The signatures of an answer.
    fn signatures(adapter: &dyn Adapter, body: &str) -> Vec<Value> {
        let mut kept = Vec::new();
        let mut decoder = AnswerDecoder::new(adapter);
        let mut out = |piece: Piece<'_>| {
            if let Piece::Opaque(signature) = piece {
                kept.push(signature);
            }
        };
        decoder.push(body.as_bytes(), &mut out).unwrap();
        decoder.end(&mut out).unwrap();
        kept
    }

    /// The next turn of a thread whose answer came with these signatures.
    fn next_turn(adapter: &dyn Adapter, opaque: &[Value]) -> String {
        let said = ChatMessage { opaque: opaque.to_vec(), ..ChatMessage::text(Role::Assistant, "Hi.") };
        let messages = vec![ChatMessage::text(Role::User, "Hello?"), said, ChatMessage::text(Role::User, "And?")];
        let request = ChatRequest {
            provider: ProviderName::new("any"),
            model: "m".into(),
            system: None,
            messages,
            temperature: None,
            max_tokens: None,
            tools: Vec::new(),
            extra: serde_json::Map::new(),
        };
        String::from_utf8(adapter.encode(&request).unwrap().body).unwrap()
    }

    const RESPONSES: &str = "data: {\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"type\":\"reasoning\",\
         \"encrypted_content\":\"blob-of-one\"}}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\
         \"completed\"}}\n\n";

    #[test]
    fn a_signature_goes_back_to_its_maker_alone() {
        let adapters = adapters();
        let kept = signatures(&*adapters["one"], RESPONSES);
        assert_eq!(kept.len(), 1);

        let told: Vec<&str> = { adapters.iter() }
            .filter(|(_, adapter)| next_turn(&***adapter, &kept).contains("blob-of-one"))
            .map(|(name, _)| name.as_str())
            .collect();

        assert_eq!(told, ["one"]);
    }

    #[test]
    fn the_signatures_of_several_providers_in_one_thread_are_told_apart() {
        let adapters = adapters();
        let mut kept = signatures(&*adapters["one"], RESPONSES);
        kept.extend(signatures(&*adapters["two"], &RESPONSES.replace("blob-of-one", "blob-of-two")));

        let turn = next_turn(&*adapters["two"], &kept);

        assert!(turn.contains("blob-of-two") && !turn.contains("blob-of-one"), "{turn}");
        assert!(!turn.contains("made_by"), "{turn}");
    }

    #[test]
    fn a_signature_without_a_mark_goes_to_nobody() {
        let adapters = adapters();
        let unmarked = signatures(&*registry::adapter(Dialect::OpenaiResponses), RESPONSES);
        assert_eq!(unmarked.len(), 1);

        for (name, adapter) in &adapters {
            assert!(!next_turn(&**adapter, &unmarked).contains("blob-of-one"), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_given_to_another_server_gets_no_signatures_of_the_first() {
        let at = |base_url: &str| {
            let file = format!("providers.one = {{ dialect = 'openai_responses', base_url = '{base_url}' }}");
            registry::of(&Config::load(Some(("f", &file)), []).unwrap().providers["one"])
        };
        let kept = signatures(&*at("https://one.test/v1"), RESPONSES);

        assert!(next_turn(&*at("https://one.test/v1/"), &kept).contains("blob-of-one"));
        assert!(!next_turn(&*at("https://other.test/v1"), &kept).contains("blob-of-one"));
    }
}
