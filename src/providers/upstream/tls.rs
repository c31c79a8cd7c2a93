//! TLS: whom the connections to a provider trust, and why there is none.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::config;

/// Trusts the public roots and the certificates in `ca_file`; offers HTTP/1.1 alone. `Err` says what is wrong with
/// the file.
///
/// The crypto provider is passed on, not installed for the process, so that nothing here depends on who came first.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        roots.extend(config::authorities(path)?.roots);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has suites for the default versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The same trust, with other protocols on offer, the best one first.
pub(super) fn offering(trust: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = trust.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not begun.
    NotYetValid,
    /// The certificate is for another name.
    WrongName,
    /// Nobody who is trusted vouches for the certificate.
    UnknownIssuer,
    /// The certificate is one that vouches for others.
    Authority,
    /// Something else is wrong with the certificate.
    Certificate,
    /// What answers does not speak TLS.
    NotTls,
    /// The connection ended before the handshake did.
    BrokenOff,
    /// The two sides do not agree: on a version, on a protocol, on who must show a certificate.
    Refused,
}

impl TlsFault {
    /// What a failed handshake's error means.
    pub(super) fn of(error: &io::Error) -> Self {
        use rustls::Error as E;
        match error.get_ref().and_then(|cause| cause.downcast_ref::<E>()) {
            Some(E::InvalidCertificate(error)) => Self::of_certificate(error),
            Some(E::InvalidMessage(_) | E::InappropriateMessage { .. }) => TlsFault::NotTls,
            Some(_) => TlsFault::Refused,
            None => TlsFault::BrokenOff,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::Expired | E::ExpiredContext { .. } => TlsFault::Expired,
            E::NotValidYet | E::NotValidYetContext { .. } => TlsFault::NotYetValid,
            E::NotValidForName | E::NotValidForNameContext { .. } => TlsFault::WrongName,
            E::UnknownIssuer => TlsFault::UnknownIssuer,
            // It has no variant of its own.
            E::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => TlsFault::Authority,
            _ => TlsFault::Certificate,
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsFault::Expired => "its certificate has expired",
            TlsFault::NotYetValid => "its certificate is not valid yet",
            TlsFault::WrongName => "its certificate is for another name",
            TlsFault::UnknownIssuer => {
                "its certificate is self-signed, or from an authority that is not trusted (ca_file)"
            }
            TlsFault::Authority => "its certificate is an authority's own and cannot be a server's",
            TlsFault::Certificate => "its certificate is not accepted",
            TlsFault::NotTls => "it does not speak TLS on this port (base_url)",
            TlsFault::BrokenOff => {
                "it ends the connection in the handshake; does it speak TLS on this port (base_url)?"
            }
            TlsFault::Refused => "no agreement in the handshake",
        })
    }
}
