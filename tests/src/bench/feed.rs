//! `/v1/watch`, with the moment each transition arrived.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use graylag::model::status::{ConditionStatus, Message};

use crate::{agent::Agent, eventually};

/// A reader of the stream.
pub struct Feed {
    arrived: Arc<Mutex<Vec<(Instant, Said)>>>,
}

/// What arrived, read when it is asked for: with a hundred readers on a few CPUs each would wait for the others' JSON.
enum Said {
    Text(String),
    Read(Box<Message>),
}

impl Said {
    fn message(&mut self) -> &Message {
        if let Self::Text(text) = self {
            let message = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            *self = Self::Read(Box::new(message));
        }
        match self {
            Self::Read(message) => message,
            Self::Text(_) => unreachable!(),
        }
    }
}

impl Feed {
    /// Begins to read; returns when the first state is there.
    pub fn open(agent: &Agent) -> Self {
        let mut stream = UnixStream::connect(&agent.socket).expect("the agent's socket");
        write!(stream, "GET /v1/watch HTTP/1.1\r\nHost: bench\r\n\r\n").expect("request");
        let arrived: Arc<Mutex<Vec<_>>> = Arc::default();
        let feed = Self { arrived: arrived.clone() };
        // Ends with the agent.
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let now = Instant::now();
                let Some(data) = line.strip_prefix("data:") else { continue };
                arrived.lock().expect("messages").push((now, Said::Text(data.to_owned())));
            }
        });
        eventually("the first state", Duration::from_secs(20), || {
            (!feed.arrived.lock().expect("messages").is_empty()).then_some(())
        });
        feed
    }

    /// When the first condition was raised that fits.
    pub fn raised(&self, fits: impl Fn(&ConditionStatus) -> bool) -> Option<Instant> {
        self.became("raised", fits)
    }

    /// When the first condition was cleared that fits.
    pub fn cleared(&self, fits: impl Fn(&ConditionStatus) -> bool) -> Option<Instant> {
        self.became("cleared", fits)
    }

    /// Every message so far, and when it came.
    pub fn each(&self, mut visit: impl FnMut(Instant, &Message)) {
        for (at, said) in self.arrived.lock().expect("messages").iter_mut() {
            visit(*at, said.message());
        }
    }

    fn became(&self, phase: &str, fits: impl Fn(&ConditionStatus) -> bool) -> Option<Instant> {
        let mut arrived = self.arrived.lock().expect("messages");
        arrived.iter_mut().find_map(|(at, said)| match said.message() {
            Message::Transition { to, condition, .. } if to == phase && fits(condition) => Some(*at),
            _ => None,
        })
    }
}
