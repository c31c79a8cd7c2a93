//! Follow: the middleware that tells a connection when a request on it begins, when its body has been read and when its
//! answer has ended, and says how the answer ends on the wire.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::Payload;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::{ConnectionType, Version, header};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage};
use futures_util::Stream;

use super::{Body, HELD_BYTES_MAX, Line};

/// The middleware, the outermost one.
pub(in crate::http) async fn follow(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<Followed<impl MessageBody>>, Error> {
    let line = request.conn_data::<Rc<Line>>().cloned();
    let running = line.clone().map(|line| Running::begin(line, &mut request));
    let mut response = next.call(request).await?;
    let closes = line.is_some_and(|line| line.is_extra() || line.has_body_left());
    // Who speaks HTTP/1.0 knows no chunks: a body of unknown length ends with the connection.
    let is_old = response.request().version() < Version::HTTP_11;
    let ends_with_connection = is_old && response.response().body().size() == BodySize::Stream;
    let head = response.response_mut().head_mut();
    if ends_with_connection {
        head.no_chunking(true);
    }
    if closes || ends_with_connection {
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response.map_body(|_, body| Followed { body: Box::pin(body), _running: running }))
}

/// A request that is being answered.
struct Running(Rc<Line>);

impl Running {
    fn begin(line: Rc<Line>, request: &mut ServiceRequest) -> Self {
        line.begin(Body::NONE);
        let payload = request.take_payload();
        if matches!(payload, Payload::None) {
            request.set_payload(payload);
            return Self(line);
        }
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
        // What an upgrade leads to has no length, whatever the head says.
        let length = length.filter(|_| !headers.contains_key(header::UPGRADE));
        let body = length.map_or(Body::Chunked, Body::Length);
        line.begin(body);
        request.set_payload(match body {
            Body::Chunked => Payload::Stream { payload: Box::pin(Reading { payload, line: line.clone() }) },
            _ => payload,
        });
        Self(line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A request's body whose end only its reader gets to see.
struct Reading {
    payload: Payload,
    line: Rc<Line>,
}

impl Stream for Reading {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.payload).poll_next(cx);
        if let Poll::Ready(None) = next {
            self.line.set_body(Body::NONE);
        }
        next
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.line.set_body(Body::Unread(HELD_BYTES_MAX as u64));
    }
}

/// The body of an answer. The framework drops it as soon as it has taken its last byte.
pub(in crate::http) struct Followed<B> {
    body: Pin<Box<B>>,
    _running: Option<Running>,
}

impl<B: MessageBody> MessageBody for Followed<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.body.as_mut().poll_next(cx)
    }
}
