//! Events: an event stream as it arrives, each event with its instant and the read that brought it.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::connection::{Connection, Head, Request};
use super::{ClientError, Stream};
use crate::sse::{self, Event};

/// An event, when it arrived and with which read.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The event.
    pub event: Event,
    /// When its last byte was read.
    pub at: Instant,
    /// The number of the read; events with the same one arrived together.
    pub read: u64,
}

/// An event stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Events<S = Stream> {
    head: Head,
    sent: Instant,
    connection: Connection<S>,
    parser: sse::Parser,
    parsed: Vec<Event>,
    arrived: VecDeque<Arrived>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Events<S> {
    /// Sends a request that is to be answered with an event stream; any other answer is [`ClientError::Refused`].
    pub async fn open(mut connection: Connection<S>, request: &Request) -> Result<Self, ClientError> {
        let sent = Instant::now();
        let head = connection.send(request).await?;
        let is_stream = head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if head.status != 200 || !is_stream {
            let response = connection.whole(head).await?;
            return Err(ClientError::Refused(Box::new(response)));
        }
        let (parser, parsed, arrived) = (sse::Parser::default(), Vec::new(), VecDeque::new());
        Ok(Self { head, sent, connection, parser, parsed, arrived })
    }

    /// The next event; `None` at the proper end of the stream.
    pub async fn next(&mut self) -> Result<Option<Arrived>, ClientError> {
        loop {
            if let Some(arrived) = self.arrived.pop_front() {
                return Ok(Some(arrived));
            }
            let Some(piece) = self.connection.next_piece().await? else { return Ok(None) };
            let (at, read) = (Instant::now(), self.connection.reads());
            self.parser.push(&piece, &mut self.parsed).map_err(|_| ClientError::TooLong)?;
            self.arrived.extend(self.parsed.drain(..).map(|event| Arrived { event, at, read }));
        }
    }

    /// The next event of this name; those before it are skipped. An end before it is [`ClientError::Cut`].
    pub async fn next_named(&mut self, name: &str) -> Result<Arrived, ClientError> {
        loop {
            match self.next().await? {
                Some(arrived) if arrived.event.name == name => return Ok(arrived),
                Some(_) => {}
                None => return Err(ClientError::Cut),
            }
        }
    }

    /// The events that are left, to the end of the stream.
    pub async fn rest(&mut self) -> Result<Vec<Arrived>, ClientError> {
        let mut rest = Vec::new();
        while let Some(arrived) = self.next().await? {
            rest.push(arrived);
        }
        Ok(rest)
    }

    /// The head of the answer.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// When the request was sent.
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// How many comments have arrived.
    pub fn comments(&self) -> u64 {
        self.parser.comments()
    }

    /// How many events without data have arrived: no browser would deliver them.
    pub fn dropped(&self) -> u64 {
        self.parser.dropped()
    }

    /// The connection, to be used again after the end of the stream.
    pub fn into_connection(self) -> Connection<S> {
        self.connection
    }
}

impl Events {
    /// Closes the connection with an error (RST) instead of properly.
    pub fn reset(self) {
        // It fails on a connection that is gone already.
        let _ = self.connection.into_stream().tcp().set_zero_linger();
    }
}

/// An answer's text: the `delta`s of these events together.
pub fn text_of<'e>(events: impl IntoIterator<Item = &'e Arrived>) -> String {
    let deltas = events.into_iter().filter(|arrived| arrived.event.name == "delta");
    deltas.map(|arrived| arrived.event.json()["delta"].as_str().unwrap_or_default().to_owned()).collect()
}

/// An answer's text when it is streamed in the dialect of OpenAI's chat completions.
pub fn openai_text_of<'e>(events: impl IntoIterator<Item = &'e Arrived>) -> String {
    let content = |arrived: &Arrived| {
        let chunk = arrived.event.json();
        chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    };
    events.into_iter().map(content).collect()
}
