//! TLS as a client of this host sees it: the system's roots, no session resumed.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};
use thiserror::Error;

/// Why no certificate could be checked.
#[derive(Debug, Error)]
pub enum RootsError {
    /// The system has none.
    #[error("no root certificates{0}; install ca-certificates, or name a PEM file in SSL_CERT_FILE")]
    None(String),
    /// rustls does not like its own provider.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Full handshakes, TLS 1.2 or 1.3, certificates checked against the system's roots (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or where
/// OpenSSL keeps them).
pub fn client() -> Result<Arc<ClientConfig>, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(RootsError::None(why));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
