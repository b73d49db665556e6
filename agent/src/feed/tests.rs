//! The server under readers that do not keep up. Real sockets, a source that has nothing to say.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{Listening, Server, Source};
use crate::{
    model::{
        avoid::{Avoid, Avoided},
        status::{Message, NodeStatus, Stamp, Status},
    },
    telemetry::{Point, catalog::Id},
};

struct Nothing;

impl Source for Nothing {
    fn status(&self) -> Status {
        unreachable!("nobody asks")
    }
    fn avoid(&self, _: &Avoid) -> Avoided {
        unreachable!("nobody asks")
    }
    fn health(&self) -> NodeStatus {
        unreachable!("nobody asks")
    }
    fn state(&self) -> Message {
        Message::State {
            stamp: stamp(0),
            node: "n".into(),
            conditions: Vec::new(),
            paths: Vec::new(),
            health: NodeStatus::default(),
        }
    }
    fn visit(&self, _: &mut dyn FnMut(Id, Vec<Point>)) {}
    fn age(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
    fn stale_after(&self) -> Duration {
        Duration::MAX
    }
    fn not_ready(&self) -> Option<String> {
        None
    }
}

fn stamp(sequence: u64) -> Stamp {
    let time = Timestamp::UNIX_EPOCH;
    Stamp { schema: 1, epoch: 7, sequence, time, valid_until: time }
}

/// A server with one reader that has had the first message and takes no more for now.
struct Stage {
    runtime: tokio::runtime::Runtime,
    server: Server,
    reader: UnixStream,
    socket: PathBuf,
}

fn stage(name: &str) -> Stage {
    let socket = std::env::temp_dir().join(format!("graylag-feed-{}-{name}.sock", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = {
        let _guard = runtime.enter();
        Server::start(Listening::bind(Some(&socket), None).unwrap(), Arc::new(Nothing)).unwrap()
    };
    let mut reader = UnixStream::connect(&socket).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    reader.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = [0; 15];
    reader.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    Stage { runtime, server, reader, socket }
}

impl Stage {
    /// Says more than the socket and the backlog can hold, with a rest after every so many messages.
    fn say_too_much(&self, rest_every: u64) {
        for sequence in 1..=20_000 {
            self.server.tell([&Message::Heartbeat { stamp: stamp(sequence) }]);
            if sequence % rest_every == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Everything that still comes, until the server hangs up.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A connection that is cut in the middle is reset.
        let _ = self.reader.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn end(self) {
        self.runtime.block_on(self.server.stop());
        assert!(!self.socket.exists(), "the socket goes with the server");
    }
}

#[test]
fn a_reader_that_falls_behind_is_told_and_cut() {
    let mut stage = stage("behind");
    stage.say_too_much(u64::MAX);
    let rest = stage.rest();
    let events: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events.last(), Some(&"cut"), "{events:?}");
    assert!(rest.contains(r#"data: {"type":"cut","missed":"#));
    // What it did get is without a gap, so that it knows where it was.
    let sequences: Vec<u64> = rest
        .lines()
        .filter_map(|line| line.strip_prefix("id: 7-")?.parse().ok())
        .filter(|sequence| *sequence > 0)
        .collect();
    assert!(sequences.len() < 20_000, "it fell behind");
    assert!(sequences.iter().zip(1..).all(|(got, expected)| *got == expected), "{sequences:?}");
    stage.end();
}

#[test]
fn a_reader_that_takes_nothing_loses_its_connection() {
    let mut stage = stage("stuck");
    // The server keeps up, so that the socket fills before the backlog does.
    stage.say_too_much(200);
    std::thread::sleep(super::connections::READER + Duration::from_secs(5));
    let rest = stage.rest();
    assert!(!rest.contains("event: cut"), "nobody waited for it");
    stage.end();
}
