//! `/api/session`: signs a browser in by a key, so that its pages need not keep the key. It gets a cookie that no script
//! can read, which names a session and says nothing else.
//!
//! Sessions are kept in memory: they end by themselves, when somebody signs out, when their key is configured no more,
//! and when weir ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::caller::Client;
use super::error::{ApiError, ApiResult};
use super::fields::Fields;
use super::{Api, edge};
use crate::chat::OrgId;
use crate::config::{AuthKey, Config, Role};
use crate::failure::{Code, Failure};

/// Sessions of one key at once; the oldest ends when there are more. No key can end those of another.
const SESSIONS_OF_KEY_MAX: usize = 1_000;
/// The random bytes of a token.
const TOKEN_LEN: usize = 32;
/// The cookie's name over HTTPS. The prefix lets browsers take it from this server alone, for the whole of it.
const SECURE_NAME: &str = "__Host-weir";
/// The cookie's name otherwise.
const PLAIN_NAME: &str = "weir";

// --- Handlers ---------------------------------------------------------------------

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct Identity<'a> {
    /// Null: all of them.
    #[schema(required)]
    org: Option<&'a OrgId>,
    #[schema(value_type = String)]
    role: Role,
    /// Whether the cookie of a session has said so.
    signed_in: bool,
}

/// `GET /api/session`
pub(super) async fn show(client: Client) -> HttpResponse {
    HttpResponse::Ok().json(facts(&client))
}

/// `POST /api/session`
pub(super) async fn begin(api: Data<Api>, request: HttpRequest, mut fields: Fields) -> ApiResult {
    if sender(&request) == Sender::OtherPage {
        return Err(foreign());
    }
    let presented = fields.text("key")?.ok_or_else(|| ApiError::field("key", "key is missing"))?;
    fields.finish()?;
    let unknown = || ApiError(Failure::new(Code::Unauthorized, "this server has no such key").param("key"));
    let config = api.config();
    let lifetime = Duration::from_millis(config.auth.session_ms);
    let key = config.authenticate(presented.trim()).ok_or_else(unknown)?;
    if let Some(token) = token(&request) {
        api.sessions.end(token);
    }
    let token = api.sessions.begin(key, lifetime, Instant::now()).map_err(|error| {
        log::error!(error:?; "the system gives no random numbers: nobody can sign in");
        ApiError::new(Code::Internal, "no session could be made")
    })?;
    let client = Client::of_session(key);
    let cookie = cookie(&request, &token, lifetime);
    Ok(HttpResponse::Ok().insert_header((header::SET_COOKIE, cookie)).json(facts(&client)))
}

/// `DELETE /api/session`
pub(super) async fn end(api: Data<Api>, request: HttpRequest) -> ApiResult {
    if let Some(token) = token(&request) {
        check_sender(&request)?;
        api.sessions.end(token);
    }
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie(&request, "", Duration::ZERO))).finish())
}

fn facts(client: &Client) -> Identity<'_> {
    Identity { org: client.org.as_ref(), role: client.role, signed_in: client.is_signed_in }
}

// --- Who sends --------------------------------------------------------------------

/// The key of the session that a request belongs to, if its cookie names one that has not ended.
///
/// A browser adds the cookie to what any page asks of this server. `SameSite=Strict` keeps it to pages of this site,
/// which includes other ports of this host; the rest is checked here, for every path.
pub(super) fn key_of<'c>(
    request: &HttpRequest,
    sessions: &Sessions,
    config: &'c Config,
) -> ApiResult<Option<&'c AuthKey>> {
    let digest = token(request).and_then(|token| sessions.find(token, Instant::now()));
    let Some(key) = digest.and_then(|digest| config.key_of(&digest)) else { return Ok(None) };
    check_sender(request).map(|()| Some(key))
}

/// What is known of where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A page of this server.
    OwnPage,
    /// A page of another origin.
    OtherPage,
    /// No page, or a browser does not say so: an address that was typed, another program.
    Unknown,
}

/// Browsers say it in `Sec-Fetch-Site`, over HTTPS and on loopback; with each write they send `Origin`, too.
fn sender(request: &HttpRequest) -> Sender {
    let said = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let called = edge::called(request).ok().flatten();
    match (said("sec-fetch-site"), said("origin")) {
        (Some("same-origin"), _) => Sender::OwnPage,
        (Some("none"), _) | (None, None) => Sender::Unknown,
        (Some(_), _) => Sender::OtherPage,
        (None, Some(origin)) => {
            let of = origin.split_once("://").map(|(_, of)| of);
            let is_own = called.zip(of).is_some_and(|(called, of)| of.eq_ignore_ascii_case(called.as_str()));
            if is_own { Sender::OwnPage } else { Sender::OtherPage }
        }
    }
}

/// Refuses what another page sends in somebody's name; what changes something must be known to come from an own page.
fn check_sender(request: &HttpRequest) -> ApiResult<()> {
    match sender(request) {
        Sender::OwnPage => Ok(()),
        Sender::Unknown if request.method().is_safe() => Ok(()),
        Sender::Unknown | Sender::OtherPage => Err(foreign()),
    }
}

fn foreign() -> ApiError {
    let message = "a session is for this server's own pages (Sec-Fetch-Site, Origin); others send a key";
    ApiError(Failure::new(Code::Forbidden, message).param("Origin"))
}

// --- The cookie -------------------------------------------------------------------

/// Whether the browser speaks HTTPS to the proxy before weir. Whoever says so wrongly changes only their own cookie.
fn is_https(request: &HttpRequest) -> bool {
    request.connection_info().scheme() == "https"
}

fn cookie_name(request: &HttpRequest) -> &'static str {
    if is_https(request) { SECURE_NAME } else { PLAIN_NAME }
}

/// What the browser is to keep.
fn cookie(request: &HttpRequest, token: &str, lifetime: Duration) -> String {
    let (name, age_s) = (cookie_name(request), lifetime.as_secs());
    let secure = if is_https(request) { "; Secure" } else { "" };
    format!("{name}={token}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}")
}

/// The token in a request's cookie.
fn token(request: &HttpRequest) -> Option<&str> {
    let name = cookie_name(request);
    let cookies = request.headers().get_all(header::COOKIE).filter_map(|value: &HeaderValue| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value).next()
}

// --- The table --------------------------------------------------------------------

/// The sessions that have not ended.
#[derive(Debug, Default)]
pub struct Sessions {
    /// By the digest of the token: how long a search takes tells nothing about tokens.
    table: Mutex<HashMap<[u8; 32], Session>>,
}

#[derive(Debug)]
struct Session {
    /// The digest of the key that it was begun with.
    key: [u8; 32],
    ends_at: Instant,
}

impl Sessions {
    /// Begins one, and returns its token. Fails when the system has no random numbers.
    fn begin(&self, key: &AuthKey, lifetime: Duration, now: Instant) -> Result<String, getrandom::Error> {
        let mut random = [0; TOKEN_LEN];
        getrandom::fill(&mut random)?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut table = self.table.lock();
        table.retain(|_, session| session.ends_at > now);
        let of_key = table.iter().filter(|(_, session)| session.key == key.digest);
        let (count, oldest) = of_key.fold((0, None), |(count, oldest), (name, session)| {
            (count + 1, oldest.into_iter().chain([(session.ends_at, *name)]).min())
        });
        if let Some((_, oldest)) = oldest.filter(|_| count >= SESSIONS_OF_KEY_MAX) {
            table.remove(&oldest);
        }
        table.insert(name_of(&token), Session { key: key.digest, ends_at: now + lifetime });
        Ok(token)
    }

    /// The digest of the key that a session was begun with.
    fn find(&self, token: &str, now: Instant) -> Option<[u8; 32]> {
        match self.table.lock().entry(name_of(token)) {
            Entry::Occupied(session) if session.get().ends_at > now => Some(session.get().key),
            Entry::Occupied(ended) => {
                ended.remove();
                None
            }
            Entry::Vacant(_) => None,
        }
    }

    fn end(&self, token: &str) {
        self.table.lock().remove(&name_of(token));
    }
}

fn name_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::chat::{OrgId, View};
    use crate::config::Role;

    fn key(text: &str) -> AuthKey {
        let view = View::Org(OrgId::new("acme"));
        AuthKey { id: text.to_owned(), digest: Sha256::digest(text).into(), view, role: Role::User }
    }

    #[test]
    fn a_session_is_found_until_its_time_is_over() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let token = sessions.begin(&key("a"), Duration::from_secs(10), now).unwrap();

        assert_eq!(sessions.find(&token, now + Duration::from_millis(9_999)), Some(key("a").digest));
        assert_eq!(sessions.find(&token, now + Duration::from_secs(10)), None);
        assert!(sessions.table.lock().is_empty());
    }

    #[test]
    fn a_key_with_too_many_sessions_loses_its_oldest_and_no_other_key_does() {
        let (sessions, hour, now) = (Sessions::default(), Duration::from_secs(3_600), Instant::now());
        let other = sessions.begin(&key("b"), hour, now).unwrap();
        let at = |n: usize| now + Duration::from_millis(n as u64);
        let tokens: Vec<_> =
            (0..=SESSIONS_OF_KEY_MAX).map(|n| sessions.begin(&key("a"), hour, at(n)).unwrap()).collect();

        let lives = |token: &String| sessions.find(token, at(SESSIONS_OF_KEY_MAX)).is_some();
        assert!(!lives(&tokens[0]) && tokens[1..].iter().all(lives) && lives(&other));
    }

    #[test]
    fn sessions_that_have_ended_are_not_kept() {
        let (sessions, second, now) = (Sessions::default(), Duration::from_secs(1), Instant::now());
        sessions.begin(&key("a"), second, now).unwrap();
        sessions.begin(&key("b"), second, now + 2 * second).unwrap();

        assert_eq!(sessions.table.lock().len(), 1);
    }

    #[test]
    fn where_a_request_comes_from_is_what_the_browser_says() {
        for (headers, expected) in [
            (&[("sec-fetch-site", "same-origin"), ("origin", "http://w:8000")] as &[_], Sender::OwnPage),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://w:8000")], Sender::OtherPage),
            (&[("sec-fetch-site", "cross-site")], Sender::OtherPage),
            (&[("sec-fetch-site", "none")], Sender::Unknown),
            (&[("origin", "https://W:8000")], Sender::OwnPage),
            (&[("origin", "http://w:8001")], Sender::OtherPage),
            (&[("origin", "http://w:8000.example")], Sender::OtherPage),
            (&[("origin", "null")], Sender::OtherPage),
            (&[], Sender::Unknown),
        ] {
            let request = TestRequest::post().insert_header(("host", "w:8000"));
            let request = headers.iter().fold(request, |request, header| request.insert_header(*header));
            assert_eq!(sender(&request.to_http_request()), expected, "{headers:?}");
        }
    }

    #[test]
    fn over_https_the_cookie_has_another_name_and_is_for_https_alone() {
        let plain = TestRequest::get().insert_header(("cookie", "a=b; weir=1; __Host-weir=2")).to_http_request();
        let secure = TestRequest::get().insert_header(("cookie", "weir=1")).insert_header(("cookie", "__Host-weir=2"));
        let secure = secure.insert_header(("x-forwarded-proto", "https")).to_http_request();

        assert_eq!((token(&plain), token(&secure)), (Some("1"), Some("2")));
        let minute = Duration::from_secs(60);
        assert_eq!(cookie(&plain, "t", minute), "weir=t; Path=/; Max-Age=60; HttpOnly; SameSite=Strict");
        assert_eq!(
            cookie(&secure, "t", minute),
            "__Host-weir=t; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
        );
    }
}
