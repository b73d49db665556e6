//! One attempt: a connection from a given port to one address, and the TLS handshake where it is asked for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::outcome::{self, Told};
use crate::model::AddressOutcome;

/// TLS, and as whom the other end is to show itself.
#[derive(Clone)]
pub struct Tls {
    /// How.
    pub client: Arc<ClientConfig>,
    /// Server name (RFC 6066, 3), to which the certificate must be.
    pub name: ServerName<'static>,
}

/// What an attempt came to.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its outcome.
    pub outcome: AddressOutcome,
    /// From the first SYN to the handshake's end, where it ended well.
    pub connect: Option<Duration>,
    /// From there to the end of TLS's, where that ended well.
    pub tls: Option<Duration>,
    /// What TLS says of its failure.
    pub reason: Option<String>,
}

impl Attempt {
    const fn failed(outcome: AddressOutcome) -> Self {
        Self { outcome, connect: None, tls: None, reason: None }
    }
}

/// Makes it. Each of the two handshakes has `patience`; the error says why there was no attempt.
pub async fn attempt(
    address: SocketAddr,
    port: u16,
    patience: Duration,
    tls: Option<&Tls>,
) -> Result<Attempt, Told> {
    let socket = open(address, port).map_err(|error| outcome::of_connect(&error))?;
    let began = Instant::now();
    let stream = match timeout(patience, socket.connect(address)).await {
        Err(_) => return Ok(Attempt::failed(AddressOutcome::TimedOut)),
        Ok(Err(error)) => {
            return match outcome::of_connect(&error) {
                Told::Outcome(outcome) => Ok(Attempt::failed(outcome)),
                other => Err(other),
            };
        }
        Ok(Ok(stream)) => stream,
    };
    let connect = Some(began.elapsed());
    let Some(tls) = tls else {
        return Ok(Attempt { connect, ..Attempt::failed(AddressOutcome::Established) });
    };
    Ok(Attempt { connect, ..handshake(stream, patience, tls).await })
}

async fn handshake(stream: TcpStream, patience: Duration, tls: &Tls) -> Attempt {
    // What fails is tried once more from the same port: no TIME-WAIT may hold it.
    let _ = stream.set_zero_linger();
    let began = Instant::now();
    let connector = TlsConnector::from(tls.client.clone());
    match timeout(patience, connector.connect(tls.name.clone(), stream)).await {
        Err(_) => Attempt {
            reason: Some("no end of the TLS handshake".into()),
            ..Attempt::failed(AddressOutcome::TimedOut)
        },
        Ok(Err(error)) => {
            let (outcome, reason) = outcome::of_tls(&error);
            Attempt { reason, ..Attempt::failed(outcome) }
        }
        Ok(Ok(mut stream)) => {
            let tls = Some(began.elapsed());
            // What ends well closes in order: close_notify and FIN (RFC 8446, 6.1).
            let _ = set_socket_linger(stream.get_ref().0, None);
            let _ = timeout(patience, stream.shutdown()).await;
            Attempt { tls, ..Attempt::failed(AddressOutcome::Established) }
        }
    }
}

/// A socket at this local port, whichever address the route gives it. Others may use the port to other destinations.
fn open(address: SocketAddr, port: u16) -> io::Result<TcpSocket> {
    let (socket, any): (_, IpAddr) = if address.is_ipv6() {
        (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into())
    } else {
        (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into())
    };
    socket.set_reuseaddr(true)?;
    socket.bind((any, port).into())?;
    Ok(socket)
}
