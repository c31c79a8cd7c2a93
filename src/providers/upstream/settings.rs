//! Settings: what a transport takes from a provider's configuration, checked before the first call.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use awc::http::Uri;
use awc::http::header::{HeaderName, HeaderValue};
use awc::http::uri::{Authority, PathAndQuery};
use rustls::ClientConfig;

use super::tls;
use crate::chat::ProviderName;
use crate::config;
use crate::providers::{Adapter, Framing};

/// What weir calls itself.
pub(super) const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// Why a provider's configuration gives no transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildError {
    /// `base_url` is not one.
    BaseUrl {
        /// Whose it is.
        provider: ProviderName,
    },
    /// The key cannot stand in a header.
    ApiKey {
        /// Whose it is.
        provider: ProviderName,
        /// The environment variable that it comes from.
        variable: String,
    },
    /// `ca_file` cannot be used.
    CaFile {
        /// Whose it is.
        provider: ProviderName,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::BaseUrl { provider } => {
                write!(f, "providers.{provider}.base_url: not an http or https URL of a host and a path")
            }
            BuildError::ApiKey { provider, variable } => {
                write!(f, "providers.{provider}.api_key_env: what {variable} holds cannot be sent as a key")
            }
            BuildError::CaFile { provider, path, reason } => {
                write!(f, "providers.{provider}.ca_file: {}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// The address of a provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BaseUrl {
    pub(super) secure: bool,
    /// Host and port, whether or not the URL has one.
    pub(super) authority: Authority,
    pub(super) port: u16,
    /// What every path begins with; no slash at its end.
    pub(super) path_prefix: String,
}

impl BaseUrl {
    pub(super) fn of(provider: &config::Provider) -> Result<Self, BuildError> {
        Self::parse(&provider.base_url).ok_or_else(|| BuildError::BaseUrl { provider: provider.name.clone() })
    }

    /// Host and port as a call names them: without the port that goes without saying.
    pub(super) fn authority_in_call(&self) -> &str {
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { self.authority.host() } else { self.authority.as_str() }
    }

    fn parse(text: &str) -> Option<Self> {
        let url: Uri = text.parse().ok()?;
        let secure = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let written = url.authority()?;
        // A password in a URL ends up in logs, and a query would end up in the middle of a path.
        if written.as_str().contains('@') || url.query().is_some() {
            return None;
        }
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Self {
            secure,
            authority: format!("{}:{port}", written.host()).parse().ok()?,
            port,
            path_prefix: url.path_and_query().map_or("", PathAndQuery::path).trim_end_matches('/').to_owned(),
        })
    }
}

/// The header that carries the provider's key, if it has one. It is marked, so that nothing prints it.
pub(super) fn authorization(
    provider: &config::Provider,
    adapter: &dyn Adapter,
) -> Result<Option<(HeaderName, HeaderValue)>, BuildError> {
    let Some(key) = provider.api_key() else { return Ok(None) };
    let (name, value) = adapter.authorization(key.expose());
    let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
    let (name, mut value) = header.ok_or_else(|| BuildError::ApiKey {
        provider: provider.name.clone(),
        variable: provider.api_key_env.clone(),
    })?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

/// The kind of answer that is asked for.
pub(super) fn accept(adapter: &dyn Adapter) -> &'static str {
    match adapter.framing() {
        Framing::Sse => "text/event-stream",
        Framing::NdJson => "application/x-ndjson",
    }
}

/// Whom the provider's connections trust.
pub(super) fn trust(provider: &config::Provider) -> Result<Arc<ClientConfig>, BuildError> {
    tls::client_config(provider.ca_file.as_deref()).map_err(|reason| BuildError::CaFile {
        provider: provider.name.clone(),
        path: provider.ca_file.clone().unwrap_or_default(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::BaseUrl;

    fn parse(text: &str) -> Option<(bool, String, String)> {
        let base = BaseUrl::parse(text)?;
        Some((base.secure, base.authority.to_string(), base.path_prefix))
    }

    #[test]
    fn a_base_url_gives_address_and_path() {
        let of = |secure, authority: &str, path: &str| Some((secure, authority.to_owned(), path.to_owned()));

        assert_eq!(parse("https://api.test/v1"), of(true, "api.test:443", "/v1"));
        assert_eq!(parse("https://api.test"), of(true, "api.test:443", ""));
        assert_eq!(parse("http://api.test/"), of(false, "api.test:80", ""));
        assert_eq!(parse("http://[::1]:8080/a/b/"), of(false, "[::1]:8080", "/a/b"));
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for text in ["", "api.test", "/v1", "ftp://api.test", "https://", "https://user:word@api.test", "http://a/?k=v"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
