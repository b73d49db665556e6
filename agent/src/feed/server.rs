//! The server side of the local API.

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, StreamExt, future, stream};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, broadcast, watch},
};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{
    Source,
    connections::{self, until},
    prometheus,
};
use crate::model::{avoid::Avoid, status::Message};

/// Messages kept for a reader that is behind; after that it is cut. A thousand paths that go down at once are four of each.
const BACKLOG: usize = 8192;
/// Readers of `/v1/watch` at once.
const WATCHERS: usize = 256;
/// Bytes of what a controller may say.
const LONGEST_BODY: usize = 256 * 1024;
/// Who may read the socket: owner and group.
const SOCKET_MODE: u32 = 0o660;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another agent answers there.
    #[error("another graylag answers at {}: stop it, or choose another socket with --socket", .0.display())]
    InUse(PathBuf),
    /// Something else is in the way.
    #[error("{} exists and is no socket: choose another with --socket", .0.display())]
    NotASocket(PathBuf),
    /// It cannot be made.
    #[error("the socket {} cannot be made: {error}; choose another with --socket", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The loopback port cannot be had.
    #[error("{field} {address}: {error}; choose another, or stop what has it")]
    Listen {
        /// Which setting.
        field: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Bound, not yet serving: so that errors come before anything else starts.
pub struct Listening {
    unix: Option<(std::os::unix::net::UnixListener, SocketFile)>,
    tcp: Option<std::net::TcpListener>,
}

/// Removes the socket when the agent ends.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listening {
    /// Takes the socket and the port. A socket that nobody answers on is a leftover and is replaced.
    pub fn bind(socket: Option<&Path>, listen: Option<SocketAddr>) -> Result<Self, ServerError> {
        let unix = socket.map(bind_unix).transpose()?;
        let tcp = listen
            .map(|address| {
                std::net::TcpListener::bind(address)
                    .and_then(|l| l.set_nonblocking(true).map(|()| l))
                    .map_err(|error| ServerError::Listen { field: "api.listen", address, error })
            })
            .transpose()?;
        Ok(Self { unix, tcp })
    }
}

fn bind_unix(path: &Path) -> Result<(std::os::unix::net::UnixListener, SocketFile), ServerError> {
    let failed = |error| ServerError::Socket { path: path.to_owned(), error };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(ServerError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(ServerError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            // Somebody else's, whom this process may not ask.
            Err(error) => return Err(failed(error)),
        },
        Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok((listener, file))
}

/// A message, written once for all its readers.
struct Said {
    sequence: u64,
    is_news: bool,
    event: Event,
}

struct Shared {
    source: Arc<dyn Source>,
    messages: broadcast::Sender<Arc<Said>>,
    watchers: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// The running API.
pub struct Server {
    messages: broadcast::Sender<Arc<Said>>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _socket: Option<SocketFile>,
}

impl Server {
    /// Serves; inside a tokio runtime.
    pub fn start(listening: Listening, source: Arc<dyn Source>) -> io::Result<Self> {
        let (messages, _) = broadcast::channel(BACKLOG);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            source,
            messages: messages.clone(),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            stop: stopped.clone(),
        });
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/v1/status", get(status))
            .route("/v1/watch", get(watching))
            .with_state(shared.clone());
        let saying = Router::new()
            .route("/v1/avoid", post(avoid))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .with_state(shared);
        let places = Arc::new(Semaphore::new(connections::MOST));
        let mut tasks = Vec::new();
        let mut socket = None;
        if let Some((listener, file)) = listening.unix {
            let listener = UnixListener::from_std(listener)?;
            // Who may say what is avoided is decided by who may open the socket; a loopback port has no owner.
            let (router, stopped) = (router.clone().merge(saying), stopped.clone());
            let places = places.clone();
            tasks.push(tokio::spawn(connections::serve(listener, router, places, stopped)));
            socket = Some(file);
        }
        if let Some(listener) = listening.tcp {
            let listener = TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(connections::serve(listener, router, places, stopped)));
        }
        Ok(Self { messages, stop, tasks, _socket: socket })
    }

    /// Tells every reader of `/v1/watch`; never waits. All are written before the first is said: a reader that wakes for it finds
    /// the others too, and a hundred readers wake once and not once for each.
    pub fn tell<'a>(&self, messages: impl IntoIterator<Item = &'a Message>) {
        // Who subscribes from now on takes the state after that, and this is in it.
        if self.messages.receiver_count() == 0 {
            return;
        }
        let said = |message: &Message| Said {
            sequence: message.stamp().sequence,
            is_news: !matches!(message, Message::Heartbeat { .. }),
            event: event(message),
        };
        let said: Vec<Arc<Said>> = messages.into_iter().map(|message| Arc::new(said(message))).collect();
        for said in said {
            // No reader is no error.
            let _ = self.messages.send(said);
        }
    }

    /// Ends all readers and the server.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        }
    }
}

/// 200 while the collector looks at the kernel as often as it should.
async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    let limit = shared.source.stale_after();
    match shared.source.age() {
        Some(age) if age > limit => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the last look at the kernel was {age:.1?} ago\n"))
                .into_response()
        }
        _ => "ok\n".into_response(),
    }
}

/// 200 once the first look is done and handshakes can be seen.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let why = match (shared.source.age(), shared.source.not_ready()) {
        (None, _) => "no look at the kernel yet".to_owned(),
        (Some(_), Some(reason)) => reason,
        (Some(age), None) if age > shared.source.stale_after() => format!("the last look was {age:.1?} ago"),
        _ => return "ready\n".into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    shared.source.visit(&mut |id, points| prometheus::write(&mut text, id.metric(), &points));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    axum::Json(shared.source.status()).into_response()
}

/// What a controller avoids, all of it; the answer says where evidence says otherwise.
async fn avoid(
    State(shared): State<Arc<Shared>>,
    said: Result<axum::Json<Avoid>, JsonRejection>,
) -> Response {
    let said = match said {
        Ok(axum::Json(said)) => said,
        Err(rejection) => return (rejection.status(), rejection.body_text() + "\n").into_response(),
    };
    match said.check() {
        Ok(()) => axum::Json(shared.source.avoid(&said)).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn watching(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(place) = shared.watchers.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{WATCHERS} readers are watching already\n"))
            .into_response();
    };
    // Subscribed before the state is taken, so that nothing falls between.
    let messages = BroadcastStream::new(shared.messages.subscribe());
    let state = shared.source.state();
    let known = state.stamp().sequence;
    let following = messages.scan(false, move |over, received| {
        let next = match received {
            _ if *over => None,
            // It is in the state already.
            Ok(said) if said.is_news && said.sequence <= known => Some(None),
            Ok(said) => Some(Some(said.event.clone())),
            Err(BroadcastStreamRecvError::Lagged(missed)) => {
                *over = true;
                Some(Some(cut(missed)))
            }
        };
        future::ready(next)
    });
    let first = stream::once(future::ready(event(&state)));
    let events = first.chain(following.filter_map(future::ready));
    let events = events.take_until(until(shared.stop.clone()));
    Sse::new(held(events, place)).keep_alive(KeepAlive::default()).into_response()
}

/// The stream, holding its place among the readers as long as it lives.
fn held<S>(
    events: S,
    place: tokio::sync::OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>>
where
    S: Stream<Item = Event>,
{
    events.map(move |event| {
        let _ = &place;
        Ok(event)
    })
}

fn event(message: &Message) -> Event {
    let stamp = message.stamp();
    let kind = match message {
        Message::State { .. } => "state",
        Message::Transition { .. } => "transition",
        Message::Path { .. } => "path",
        Message::Node { .. } => "node",
        Message::Heartbeat { .. } => "heartbeat",
    };
    let event = Event::default().event(kind).id(format!("{}-{}", stamp.epoch, stamp.sequence));
    event.json_data(message).unwrap_or_else(|error| Event::default().event("error").data(error.to_string()))
}

/// A reader that does not keep up is told so and cut: what it missed it gets by coming again.
fn cut(missed: u64) -> Event {
    Event::default().event("cut").data(format!("{{\"type\":\"cut\",\"missed\":{missed}}}"))
}
