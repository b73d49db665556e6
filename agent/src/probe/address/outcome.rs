//! What the kernel's errors and TLS's mean for an attempt.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::model::AddressOutcome;

/// Why an attempt did not come about, or what it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something of the path or the other end.
    Outcome(AddressOutcome),
    /// The local port is taken for this destination: another one may do.
    PortTaken,
    /// This host: nothing left it.
    Unsent,
}

/// What an error of `bind` or `connect` says (tcp(7), ip(7)).
pub fn of_connect(error: &io::Error) -> Told {
    use io::ErrorKind as Kind;
    Told::Outcome(match error.kind() {
        Kind::ConnectionRefused => AddressOutcome::Refused,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => AddressOutcome::Reset,
        Kind::TimedOut => AddressOutcome::TimedOut,
        Kind::HostUnreachable | Kind::NetworkUnreachable => AddressOutcome::Unreachable,
        Kind::AddrInUse | Kind::AddrNotAvailable => return Told::PortTaken,
        _ => return Told::Unsent,
    })
}

/// What an error of the TLS handshake says, and its reason in words where it is TLS's own.
pub fn of_tls(error: &io::Error) -> (AddressOutcome, Option<String>) {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return (AddressOutcome::TlsFailed, Some(reason(tls)));
    }
    match (error.kind(), of_connect(error)) {
        (io::ErrorKind::UnexpectedEof, _) => {
            (AddressOutcome::TlsFailed, Some("the other end closed the connection".into()))
        }
        (_, Told::Outcome(outcome)) => (outcome, None),
        _ => (AddressOutcome::TlsFailed, Some(error.to_string())),
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate's issuer is not trusted".into()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is for another name".into(),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate has expired".into()
        }
        Error::InvalidCertificate(other) => format!("the certificate is not valid: {other:?}"),
        Error::InvalidMessage(_) => "what came is no TLS".into(),
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the other end refused: handshake_failure".into()
        }
        Error::AlertReceived(alert) => format!("the other end sent the alert {alert:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_outcome() {
        let told = |errno| of_connect(&io::Error::from_raw_os_error(errno));
        // Linux: ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EADDRINUSE, EADDRNOTAVAIL, EMFILE.
        for (errno, outcome) in [
            (111, AddressOutcome::Refused),
            (104, AddressOutcome::Reset),
            (110, AddressOutcome::TimedOut),
            (113, AddressOutcome::Unreachable),
            (101, AddressOutcome::Unreachable),
        ] {
            assert_eq!(told(errno), Told::Outcome(outcome), "{errno}");
        }
        assert_eq!((told(98), told(99), told(24)), (Told::PortTaken, Told::PortTaken, Told::Unsent));
    }

    #[test]
    fn tls_says_why() {
        let tls = |error: Error| of_tls(&io::Error::new(io::ErrorKind::InvalidData, error));
        let (outcome, reason) = tls(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(outcome, AddressOutcome::TlsFailed);
        assert_eq!(reason.unwrap(), "the certificate's issuer is not trusted");
        let (outcome, reason) = of_tls(&io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!((outcome, reason), (AddressOutcome::Reset, None));
        let (outcome, reason) = of_tls(&io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(outcome == AddressOutcome::TlsFailed && reason.is_some());
    }
}
