//! The client side of the local API: `graylag top`, `status` and `watch`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::model::status::{Message, Status};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("no agent answers at {}: {error}; {}", path.display(), remedy(.error))]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something went wrong on the way.
    #[error("the agent at {}: {problem}", path.display())]
    Answer {
        /// Where.
        path: PathBuf,
        /// What.
        problem: String,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "the socket is for its owner and group: be one of them, or root",
        _ => "is `graylag run` running, with this --socket?",
    }
}

/// Reads one agent.
pub struct Client {
    path: PathBuf,
}

/// An agent that does not answer within this is as good as dead.
const PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// Of the agent behind a socket.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// `/v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let answer = tokio::time::timeout(PATIENCE, async {
            let body = self.get("/v1/status").await?;
            body.collect().await.map_err(|error| self.failed(&error)).map(http_body_util::Collected::to_bytes)
        });
        let bytes = answer.await.map_err(|_| self.failed(&format!("no answer within {PATIENCE:?}")))??;
        serde_json::from_slice(&bytes).map_err(|error| self.failed(&format!("not understood: {error}")))
    }

    /// Whether it answers with 200 here, where there is nothing else to know; its reason where it does not.
    pub async fn affirms(&self, path: &str) -> Result<(), ClientError> {
        let answer = tokio::time::timeout(PATIENCE, self.get(path)).await;
        answer.map_err(|_| self.failed(&format!("no answer within {PATIENCE:?}")))?.map(drop)
    }

    /// `/v1/watch`: calls `each` with every message until the agent ends or `each` says no. `each` gets the JSON as it
    /// came, and the message where this version understands it.
    pub async fn watch(
        &self,
        mut each: impl FnMut(&str, Option<Message>) -> bool,
    ) -> Result<(), ClientError> {
        let mut body = self.get("/v1/watch").await?;
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            pending.extend_from_slice(data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(json) = line.trim_end().strip_prefix("data:") {
                    let json = json.trim_start();
                    if !each(json, serde_json::from_str(json).ok()) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Incoming, ClientError> {
        let connect = |error| ClientError::Connect { path: self.path.clone(), error };
        let stream = UnixStream::connect(&self.path).await.map_err(connect)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "graylag").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            const MOST: usize = 1024;
            // Its words say more than its number.
            let words = Limited::new(response.into_body(), MOST).collect();
            let words = tokio::time::timeout(PATIENCE, words).await;
            let words = words.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
            let words = words.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let problem = format!("{path} answered {status}: {}", words.trim());
            return Err(self.failed(&problem.trim_end_matches([':', ' '])));
        }
        Ok(response.into_body())
    }

    fn failed(&self, problem: &impl ToString) -> ClientError {
        ClientError::Answer { path: self.path.clone(), problem: problem.to_string() }
    }
}
