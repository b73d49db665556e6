//! What load balancers ask: is this node gray? `/health/node` over HTTP, and `HAProxy`'s agent-check.
//!
//! A listener of its own, for balancers are elsewhere and the API stays on this host. It tells of the node's verdict and of nothing
//! else. Where nothing is known, all is said to be well: a balancer that believed otherwise would empty a node for want of news.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use super::{
    ServerError, Source,
    connections::{self, until},
};
use crate::model::status::NodeStatus;

/// Connections at once, of both listeners.
const MOST: usize = 64;
/// Bytes of what a balancer may say.
const LONGEST_QUESTION: u64 = 1024;
/// A balancer takes one line within this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bound, not yet serving.
pub struct Listening {
    http: Option<std::net::TcpListener>,
    agent_check: Option<std::net::TcpListener>,
}

impl Listening {
    /// Takes the ports.
    pub fn bind(http: Option<SocketAddr>, agent_check: Option<SocketAddr>) -> Result<Self, ServerError> {
        let bind = |address: Option<SocketAddr>, field| {
            address
                .map(|address| bind(address).map_err(|error| ServerError::Listen { field, address, error }))
        };
        Ok(Self {
            http: bind(http, "node_health.listen").transpose()?,
            agent_check: bind(agent_check, "node_health.agent_check").transpose()?,
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The running listeners.
pub struct Balancers {
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Balancers {
    /// Serves; inside a tokio runtime.
    pub fn start(listening: Listening, source: Arc<dyn Source>) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let places = Arc::new(Semaphore::new(MOST));
        let mut tasks = Vec::new();
        if let Some(listener) = listening.http {
            let router = Router::new().route("/health/node", get(health)).with_state(source.clone());
            let listener = TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(connections::serve(listener, router, places.clone(), stopped.clone())));
        }
        if let Some(listener) = listening.agent_check {
            let listener = TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(agent_checks(listener, source, places, stopped)));
        }
        Ok(Self { stop, tasks })
    }

    /// Ends them.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        }
    }
}

/// What is known, or nothing where the collector is stuck.
fn known(source: &dyn Source) -> NodeStatus {
    match source.age() {
        Some(age) if age <= source.stale_after() => source.health(),
        _ => NodeStatus {
            state: "unknown".into(),
            weight: 100,
            reasons: vec!["the kernel has not been looked at lately".into()],
            ..NodeStatus::default()
        },
    }
}

async fn health(State(source): State<Arc<dyn Source>>) -> Response {
    let (code, text) = answer(&known(&*source));
    (code, text).into_response()
}

/// 503 while the node is gray or failing; the first line says so and the others why.
fn answer(node: &NodeStatus) -> (StatusCode, String) {
    let is_bad = matches!(node.state.as_str(), "gray" | "failing");
    let code = if is_bad { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut text = format!("{}, {} % of its load\n", node.state, node.weight);
    for reason in &node.reasons {
        text.push_str(reason);
        text.push('\n');
    }
    (code, text)
}

async fn agent_checks(
    listener: TcpListener,
    source: Arc<dyn Source>,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until(stopped.clone()) => return,
        };
        let Ok((stream, _)) = stream else {
            // No descriptor left, most likely: it will not be better at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // One too many is cut off, which HAProxy takes for no news.
        if let Ok(place) = places.clone().try_acquire_owned() {
            let line = line(&known(&*source));
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, say(stream, &line)).await;
                drop(place);
            });
        }
    }
}

async fn say(mut stream: TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await?;
    // What HAProxy may have said (`agent-send`) is taken: a socket that is closed with something unread is reset, and the answer with it.
    tokio::io::copy(&mut stream.take(LONGEST_QUESTION), &mut tokio::io::sink()).await?;
    Ok(())
}

/// The answer to an agent-check (`HAProxy`, configuration manual, `agent-check`): `ready` takes back a `drain`, `up` a `down`.
fn line(node: &NodeStatus) -> String {
    match node.weight {
        0 => "drain\n".into(),
        weight => format!("ready up {weight}%\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: &str, weight: u8, reasons: &[&str]) -> NodeStatus {
        let reasons = reasons.iter().map(|reason| (*reason).into()).collect();
        NodeStatus { state: state.into(), weight, reasons, ..NodeStatus::default() }
    }

    #[test]
    fn only_what_is_bad_is_refused_and_says_why() {
        let gray = answer(&node("gray", 5, &["media_activation of this node: none"]));
        assert_eq!(gray.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(gray.1, "gray, 5 % of its load\nmedia_activation of this node: none\n");
        assert_eq!(answer(&node("failing", 5, &[])).0, StatusCode::SERVICE_UNAVAILABLE);
        for state in ["unknown", "healthy", "recovering"] {
            assert_eq!(answer(&node(state, 100, &[])).0, StatusCode::OK);
        }
    }

    #[test]
    fn a_weight_is_a_share_and_none_drains() {
        assert_eq!(line(&node("healthy", 100, &[])), "ready up 100%\n");
        assert_eq!(line(&node("gray", 5, &[])), "ready up 5%\n");
        assert_eq!(line(&node("gray", 0, &[])), "drain\n");
    }
}
