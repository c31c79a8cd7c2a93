//! Authorities: the certificates in a provider's `ca_file`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The largest file, in bytes; all public roots together have a quarter of it.
const BYTES_MAX: u64 = 1024 * 1024;

/// Reads a PEM file of certificates to trust; there must be one at least. `Err` says what is wrong with the file.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let text = read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|_| "not a PEM file".to_owned())?;
        roots.add(certificate).map_err(|error| format!("not a certificate authority: {error}"))?;
    }
    if roots.is_empty() { Err("no PEM certificate in it".to_owned()) } else { Ok(roots) }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(text)
}
