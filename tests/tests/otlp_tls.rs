//! OTLP over TLS, with the collector's certificate checked and the client's own shown, on both protocols.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{path::PathBuf, time::Duration};

use graylag_tests::{
    agent::Setup,
    eventually,
    net::Pair,
    otlp::{Certificates, Collector, Protocol},
    proc::Directory,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const PORT: u16 = 14318;
const SOON: Duration = Duration::from_secs(40);

/// An authority, a collector's and a client's certificate, and another authority that signed nothing.
struct Pki {
    directory: Directory,
}

impl Pki {
    fn new() -> Self {
        let directory = Directory::new();
        let authority = |name: &str| {
            let mut parameters = CertificateParams::new(Vec::new()).unwrap();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
        };
        let (signs, signs_nothing) = (authority("signs"), authority("signs nothing"));
        directory.write("ca.pem", &signs.pem());
        directory.write("other.pem", &signs_nothing.pem());
        for (name, subject) in [("collector", "127.0.0.1"), ("client", "graylag.example")] {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![subject.to_owned()]).unwrap().signed_by(&key, &signs).unwrap();
            directory.write(&format!("{name}.pem"), &certificate.pem());
            directory.write(&format!("{name}.key"), &key.serialize_pem());
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn setup(pair: &Pair, protocol: Protocol, pki: &Pki, authority: &str) -> Setup {
    Setup::watching(&[&pair.client])
        .inside(&pair.client)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("https://127.0.0.1:{PORT}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", pki.path(authority).to_str().unwrap())
}

#[test]
fn both_ends_show_their_certificates() {
    let pki = Pki::new();
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let (certificate, key, authority) =
            (pki.path("collector.pem"), pki.path("collector.key"), pki.path("ca.pem"));
        let tls = Certificates { certificate: &certificate, key: &key, client_authority: Some(&authority) };
        let collector = Collector::with(&pair.client, protocol, PORT, Some(tls));

        // Without its own certificate the collector does not let it in.
        let stranger = setup(&pair, protocol, &pki, "ca.pem").start();
        eventually("the stranger is turned away", SOON, || stranger.status().agent.export_error);
        assert!(collector.seen().is_empty());
        drop(stranger);

        let known = setup(&pair, protocol, &pki, "ca.pem")
            .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", pki.path("client.pem").to_str().unwrap())
            .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", pki.path("client.key").to_str().unwrap())
            .start();
        eventually("metrics arrive", SOON, || (!collector.taken("metrics").is_empty()).then_some(()));
        assert_eq!(known.status().agent.export_error, None);
    }
}

#[test]
fn a_collector_signed_by_somebody_else_gets_nothing() {
    let pki = Pki::new();
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let (certificate, key) = (pki.path("collector.pem"), pki.path("collector.key"));
        let tls = Certificates { certificate: &certificate, key: &key, client_authority: None };
        let collector = Collector::with(&pair.client, protocol, PORT, Some(tls));
        let agent = setup(&pair, protocol, &pki, "other.pem").start();
        let error = eventually("the certificate is refused", SOON, || agent.status().agent.export_error);
        assert!(error.contains("certificate"), "{error}");
        assert!(collector.seen().is_empty());
    }
}
