//! TLS: whom the connections to a provider trust.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

/// Trusts the public roots and the certificates in `ca_file`; offers HTTP/1.1 alone. `Err` says what is wrong with
/// the file.
///
/// The crypto provider is passed on, not installed for the process, so that nothing here depends on who came first.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        add(path, &mut roots)?;
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

fn add(path: &Path, roots: &mut RootCertStore) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| reason(&error))?;
    let mut none = true;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| reason(&error))?;
        roots.add(certificate).map_err(|error| format!("not a certificate authority: {error}"))?;
        none = false;
    }
    if none { Err("no PEM certificate in it".to_owned()) } else { Ok(()) }
}

fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        _ => "not a PEM file".to_owned(),
    }
}
