//! OTLP over TLS, with the collector's certificate checked and the client's own shown, on both protocols.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::time::Duration;

use graylag_tests::{
    agent::Setup,
    eventually,
    net::Pair,
    otlp::{Certificates, Collector, Protocol},
    pki::Pki,
};

const PORT: u16 = 14318;
const SOON: Duration = Duration::from_secs(40);

fn certificates() -> Pki {
    Pki::new(&[("collector", "127.0.0.1"), ("client", "graylag.example")])
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
    let pki = certificates();
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
    let pki = certificates();
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
