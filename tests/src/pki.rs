//! Certificates of a test: two authorities, of which one has signed nothing.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::proc::Directory;

/// `ca.pem` signs, `other.pem` does not; for each name there are `NAME.pem` and `NAME.key`.
pub struct Pki {
    directory: Directory,
}

impl Pki {
    /// A certificate for each `(name, subject)`.
    pub fn new(signed: &[(&str, &str)]) -> Self {
        let directory = Directory::new();
        let signs = authority("signs");
        directory.write("ca.pem", &signs.pem());
        directory.write("other.pem", &authority("signs nothing").pem());
        for (name, subject) in signed {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![(*subject).to_owned()]).unwrap().signed_by(&key, &signs).unwrap();
            directory.write(&format!("{name}.pem"), &certificate.pem());
            directory.write(&format!("{name}.key"), &key.serialize_pem());
            // As haproxy wants it.
            directory
                .write(&format!("{name}.both"), &format!("{}{}", certificate.pem(), key.serialize_pem()));
        }
        Self { directory }
    }

    /// Where one of its files is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}
