//! Providers: how each kind of LLM server is spoken to.
//!
//! An [`Adapter`] is pure: it turns a [`ChatRequest`] into the bytes of an HTTP request and the bytes of the answer
//! into [`Piece`]s. It knows no socket, no clock and no actor. Only [`upstream`] talks to the network.

pub mod answer;
pub mod anthropic;
mod bounds;
mod extras;
pub mod frames;
pub mod gemini;
mod images;
mod json;
mod moments;
pub mod ollama;
pub mod openai_chat;
pub mod openai_responses;
mod owned;
mod rate;
mod refused;
pub mod registry;
mod sources;
pub mod upstream;

use serde_json::Value;

pub use self::rate::{Allowance, REMAINING_MAX, RESET_MAX, RateHint, rate_headers};
use crate::chat::ChatRequest;
use crate::event::{Event, Finish};
use crate::failure::Failure;

/// One dialect: the requests that a kind of server understands, and the answers that it gives.
pub trait Adapter: Send + Sync + 'static {
    /// Writes the HTTP request that streams the answer to `request`.
    fn encode(&self, request: &ChatRequest) -> Result<Call, Failure>;

    /// The header that carries the key, as name and value.
    fn authorization(&self, key: &str) -> (&'static str, String);

    /// How the answer's bytes are cut into frames.
    fn framing(&self) -> Framing;

    /// A fresh decoder for one answer.
    fn decoder(&self) -> Box<dyn Decode>;

    /// What an answer that is no success means. `body` is at most the first 64 KiB of it.
    fn failure(&self, head: &Head, body: &[u8]) -> Failure;

    /// The call that ends an answer at the provider, where closing its connection does not. Its response says nothing
    /// that matters.
    fn cancel_call(&self, upstream_id: &str) -> Option<Call> {
        let _ = upstream_id;
        None
    }

    /// The path of a cheap `GET` that opens a connection, if there is one.
    fn warm_path(&self) -> Option<&'static str>;

    /// The headers with which that `GET` also tells whether the key is good.
    fn warm_headers(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// How an answer's bytes are cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON document a line.
    NdJson,
}

/// Turns the frames of one answer into [`Piece`]s.
pub trait Decode {
    /// Takes one frame; pieces go to `out` in order. `Err` fails the answer.
    fn frame(&mut self, frame: &Frame<'_>, out: &mut dyn FnMut(Piece<'_>)) -> Result<Flow, Failure>;

    /// The body has ended without [`Flow::Ended`]. `Err` when the dialect's terminator is missing.
    fn end(&mut self, out: &mut dyn FnMut(Piece<'_>)) -> Result<(), Failure>;

    /// How the answer ended; asked after [`Flow::Ended`] or a successful [`Decode::end`].
    fn finish(&self) -> Finish;
}

/// Whether more of an answer is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// That was the terminator; whatever follows is ignored.
    Ended,
}

/// One frame of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The `event:` field, if there was one.
    pub event: Option<&'a str>,
    /// The `data:` lines joined, or the line of NDJSON.
    pub data: &'a str,
}

/// What a decoder finds in a frame.
#[derive(Debug, PartialEq)]
pub enum Piece<'a> {
    /// Something for the listeners.
    Event(Event<'a>),
    /// The model as the provider reports it.
    Model(&'a str),
    /// The provider's id of this answer.
    UpstreamId(&'a str),
    /// A signature of reasoning that must go back with the next turn; never shown to clients.
    Opaque(Value),
}

/// An HTTP request in a dialect. The base URL, the key and the transport's own headers are added by [`upstream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Appended to the provider's base URL, with its leading slash and its query.
    pub path: String,
    /// Headers beside `content-type: application/json`.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: Vec<u8>,
}

/// The head of a provider's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// The headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header called `name` (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
