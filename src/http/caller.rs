//! Caller: who asks. Every handler that touches anything of an organisation takes one.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{FromRequest, HttpRequest};

use super::error::{ApiError, ApiResult};
use super::{Api, session};
use crate::accounts::{Accounts, Entry};
use crate::chat::{OrgId, Principal, View};
use crate::config::{self, Allowance, Auth, AuthKey, Role};
use crate::failure::{Code, Failure};

/// The organisation of requests that name none, while no keys are configured.
const DEFAULT_ORG: &str = "org_demo";
/// The key of requests while no keys are configured.
const OPEN_KEY: &str = "open";

/// A client that is known, whatever it may do.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The key it came with.
    key: String,
    pub(super) role: Role,
    /// The organisation that it belongs to. An operator of all belongs to none.
    pub(super) org: Option<OrgId>,
    view: View,
    /// How much it may ask for; `None` while no keys are configured.
    allowance: Option<Allowance>,
    /// Whether it came with a session's cookie in place of its key.
    pub(super) is_signed_in: bool,
}

impl Client {
    /// The client that a session has just begun for.
    pub(super) fn of_session(auth: &Auth, key: &AuthKey) -> Self {
        Self::of_key(auth, key, None, true)
    }

    /// The client with this key, who names an organisation or none.
    fn of_key(auth: &Auth, key: &AuthKey, named: Option<OrgId>, is_signed_in: bool) -> Self {
        let (org, view) = match (&key.view, named) {
            (View::Org(own), _) => (Some(own.clone()), key.view.clone()),
            (View::Everything, Some(named)) => (None, View::Org(named)),
            (View::Everything, None) => (None, View::Everything),
        };
        let allowance = Some(auth.allowance_of(key));
        Self { key: key.id.clone(), role: key.role, org, view, allowance, is_signed_in }
    }
}

/// A client that may chat, for its organisation.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its organisation.
    pub(super) org: OrgId,
    /// The key it came with.
    key: String,
    allowance: Option<Allowance>,
}

impl Caller {
    /// Takes in a request for an answer, which costs one of its minute's requests.
    pub(super) fn enter(&self, accounts: &Accounts) -> ApiResult<Entry> {
        let Some(allowance) = self.allowance else { return Ok(Entry::default()) };
        accounts.enter(&self.key, allowance).map_err(ApiError)
    }

    /// Who asks on behalf of `user`. The length of the key separates it from the user, whatever both contain.
    pub(super) fn principal(&self, user: Option<&str>) -> Principal {
        Principal::new(format!("{}:{}{}", self.key.len(), self.key, user.unwrap_or_default()))
    }
}

/// A client that may operate the server.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    /// Whose requests and streams it sees. Pacers and profiles are everybody's.
    pub(super) view: View,
}

impl FromRequest for Client {
    type Error = ApiError;
    type Future = Ready<ApiResult<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request, &Api::of(request)))
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<ApiResult<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request, &Api::of(request)).and_then(|client| match client.org {
            Some(org) => Ok(Caller { org, key: client.key, allowance: client.allowance }),
            None => {
                let message =
                    "this key belongs to no organisation, so it has no threads and requests: use one that does";
                Err(ApiError::new(Code::Forbidden, message))
            }
        }))
    }
}

impl FromRequest for Operator {
    type Error = ApiError;
    type Future = Ready<ApiResult<Self>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(identify(request, &Api::of(request)).and_then(|client| match client.role {
            Role::Admin => Ok(Operator { view: client.view }),
            Role::User => Err(ApiError::new(Code::Forbidden, "this needs a key with the role admin")),
        }))
    }
}

/// Who asks. A key wins over a session, also a wrong one.
fn identify(request: &HttpRequest, api: &Api) -> ApiResult<Client> {
    let config = api.config();
    let named = org_header(request)?;
    if config.auth.keys.is_empty() {
        let view = named.clone().map_or(View::Everything, View::Org);
        let org = named.unwrap_or_else(|| OrgId::new(DEFAULT_ORG));
        let key = OPEN_KEY.to_owned();
        return Ok(Client { key, role: Role::Admin, org: Some(org), view, allowance: None, is_signed_in: false });
    }
    let refused = || ApiError::new(Code::Unauthorized, "a key is needed: Authorization: Bearer <key>");
    let presented = request.headers().get(header::AUTHORIZATION);
    let key = match presented {
        Some(presented) => bearer(presented).and_then(|key| config.authenticate(key)),
        None => session::key_of(request, &api.sessions, &config)?,
    };
    let key = key.ok_or_else(refused)?;
    if named.as_ref().is_some_and(|org| !key.view.shows(org)) {
        let message = "the key belongs to another organisation";
        return Err(ApiError(Failure::new(Code::Forbidden, message).param("x-org-id")));
    }
    Ok(Client::of_key(&config.auth, key, named, presented.is_none()))
}

/// The key in `Authorization: Bearer <key>`.
fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, key) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn org_header(request: &HttpRequest) -> ApiResult<Option<OrgId>> {
    let Some(value) = request.headers().get("x-org-id") else { return Ok(None) };
    let org = value.to_str().unwrap_or_default();
    if !config::is_name(org) {
        return Err(ApiError::field("x-org-id", "x-org-id must be 1 to 64 of [A-Za-z0-9_.-]"));
    }
    Ok(Some(OrgId::new(org)))
}
