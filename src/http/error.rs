//! ApiError: a [`Failure`] as an HTTP response. The table of codes is in `failure.rs`; nothing is decided here.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::guardian;
use crate::failure::{Code, Failure, FailureBody};
use crate::store::StoreError;

/// A failure on its way to a client.
#[derive(Debug)]
pub(super) struct ApiError(pub(super) Failure);

/// What handlers return.
pub(super) type ApiResult<T = HttpResponse> = Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Failure::new(code, message))
    }

    /// A field that is to blame.
    pub(super) fn field(param: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Failure::new(Code::InvalidRequest, message).param(param))
    }

    /// The response, naming the request that it answers.
    pub(super) fn response(&self, request_id: Option<&str>) -> HttpResponse {
        let status = StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if let Some(retry_after_ms) = self.0.retry_after_ms.filter(|_| matches!(status.as_u16(), 429 | 503)) {
            response.insert_header((header::RETRY_AFTER, retry_after_ms.div_ceil(1_000).to_string()));
            response.insert_header(("retry-after-ms", retry_after_ms.to_string()));
        }
        // OpenAI's clients retry every 429 and 5xx otherwise, also where that cannot help.
        response.insert_header(("x-should-retry", self.0.code.retryable().to_string()));
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(ErrorBody { error: self.0.body(request_id) })
    }
}

/// The one shape of errors.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody<'a> {
    pub(super) error: FailureBody<'a>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.response(None)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let failure = match error {
            StoreError::ThreadNotFound => Failure::new(Code::ThreadNotFound, "no such thread"),
            StoreError::Busy => Failure::new(Code::Storage, "the store has more to do than it may (store.queue_max)")
                .retry_after_ms(1_000),
            error => {
                // The store itself has said what is wrong, once.
                log::warn!(error:?; "the store did not answer a call");
                Failure::new(Code::Storage, "the store does not answer")
            }
        };
        Self(failure)
    }
}

/// A permanent actor is being started again, or has died while it was asked.
impl From<guardian::Gone> for ApiError {
    fn from(_: guardian::Gone) -> Self {
        Self(Failure::new(Code::Internal, "a part of the server is being restarted").retry_after_ms(1_000))
    }
}
