//! The chat page: a few files, embedded, served as they are.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Path;

use super::error::{ApiError, ApiResult};
use crate::failure::Code;

/// Nothing may run or load but the page's own files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files by name, with their types.
const FILES: [(&str, &str, &str); 2] = [
    ("chat.css", "text/css; charset=utf-8", include_str!("chat.css")),
    ("chat.js", "text/javascript; charset=utf-8", include_str!("chat.js")),
];

pub(super) async fn index() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

pub(super) async fn asset(name: Path<String>) -> ApiResult {
    let known = FILES.iter().find(|(known, _, _)| *known == name.as_str());
    let (_, kind, content) = known.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such file"))?;
    Ok(file(kind, content))
}

fn file(kind: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(content)
}
