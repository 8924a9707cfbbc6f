//! TLS towards Connect: the server's certificate is always verified.

use std::path::Path;
use std::sync::Arc;

use plumbline_sdk::{Error, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts the authorities of the file; None: the well-known ones.
pub(super) fn client(ca: Option<&Path>) -> Result<ClientConfig> {
    let failed = |cause: rustls::Error| Error::config("TLS towards Kafka Connect could not be set up").caused_by(cause);
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable = |cause| Error::config(format!("the file of certificates `{}` (`CONNECT_CA`) cannot be read as PEM", path.display())).caused_by(cause);
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).map_err(failed)?;
            }
            if roots.is_empty() {
                return Err(Error::config(format!("the file of certificates `{}` (`CONNECT_CA`) holds none", path.display())));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions().map_err(failed)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
