//! Workers whose controller has stopped to dispatch: connected, kept alive, and nothing comes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use graylag_tests::{
    agent::{Setup, Watch},
    eventually,
    net::{Pair, address},
    random::Random,
    traffic::{Echo, ask, connect, listen},
};
use socket2::{SockRef, TcpKeepalive};

const SOON: Duration = Duration::from_secs(60);
/// The controllers' heartbeat.
const BEAT: Duration = Duration::from_millis(600);

/// A controller, and workers that hold connections to it.
struct Dispatch {
    /// Nothing is said any more, and everything stays open.
    silent: Arc<AtomicBool>,
    /// Words that workers heard.
    heard: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Dispatch {
    /// `pause` says how long after the word of this number the next one comes; workers come anew after `lives`.
    fn start(
        pair: &Pair,
        port: u16,
        workers: usize,
        lives: Duration,
        pause: impl FnMut(u64) -> Duration + Clone + Send + 'static,
    ) -> Self {
        let listener = listen(&pair.server, address::SERVER_V4, port, 64);
        listener.set_nonblocking(true).unwrap();
        let (silent, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let heard = Arc::new(AtomicU64::new(0));
        // A thread is born in its maker's namespace.
        let mut threads: Vec<JoinHandle<()>> = pair.client.run(|| {
            let work = || {
                let (heard, stop) = (heard.clone(), stop.clone());
                thread::spawn(move || works(port, lives, &heard, &stop))
            };
            (0..workers).map(|_| work()).collect()
        });
        let (quiet, over) = (silent.clone(), stop.clone());
        threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let (quiet, over, pause) = (quiet.clone(), over.clone(), pause.clone());
                    thread::spawn(move || speaks(stream, &quiet, &over, pause));
                }
                thread::sleep(Duration::from_millis(5));
            }
        }));
        Self { silent, heard, stop, threads }
    }

    fn falls_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The controller's end of one connection.
fn speaks(
    mut stream: TcpStream,
    silent: &AtomicBool,
    stop: &AtomicBool,
    mut pause: impl FnMut(u64) -> Duration,
) {
    for number in 0.. {
        if !silent.load(Ordering::Relaxed) && stream.write_all(b"a word, or a job").is_err() {
            return;
        }
        let until = Instant::now() + pause(number);
        while Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A worker: it answers each word with one of its own, as workers do, and keeps its connection alive.
fn works(port: u16, lives: Duration, heard: &AtomicU64, stop: &AtomicBool) {
    loop {
        let mut stream = TcpStream::connect((address::SERVER_V4, port)).unwrap();
        let each = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new().with_time(each).with_interval(each);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let born = Instant::now();
        let mut word = [0; 64];
        while born.elapsed() < lives {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Ok(1..) = stream.read(&mut word) {
                heard.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"done").unwrap();
            }
        }
    }
}

#[test]
fn workers_that_nobody_dispatches_to_are_told_and_their_twins_are_not() {
    const LONG: Duration = Duration::from_secs(3600);
    let pair = Pair::new();
    let ports =
        "[[service]]\nname = \"dispatch\"\nremote_ports = [7000]\n[thresholds]\nsilence_learning = \"20s\"";
    let agent = Setup::watching(&[&pair.client]).config(ports).start();
    let watch = Watch::start(&agent);
    let controller = Dispatch::start(&pair, 7000, 3, LONG, |_| BEAT);
    // The twins: one pauses regularly; one has workers that come and go; one has jobs by chance; one is asked and does not speak
    // of itself.
    let pausing =
        Dispatch::start(&pair, 7001, 2, LONG, |number| if number % 10 == 9 { BEAT * 10 } else { BEAT });
    let reconnecting = Dispatch::start(&pair, 7002, 2, BEAT * 30, |_| BEAT);
    let mut chance = Random::new(7);
    let jobs = Dispatch::start(&pair, 7003, 2, LONG, move |_| {
        BEAT.mul_f64(-(f64::from(chance.word()) / f64::from(u32::MAX)).max(1e-4).ln())
    });
    let echo = Echo::start(&pair.server, address::SERVER_V4, 7004);
    let mut polling = connect(&pair.client, echo.address.ip(), 7004).unwrap();
    for _ in 0..70 {
        ask(&mut polling, 10).unwrap();
        thread::sleep(BEAT);
    }
    assert_eq!(watch.raised(), [], "everything speaks");
    // Night: no jobs, nobody asks. And a controller that has stopped to dispatch, while all its connections stand.
    jobs.falls_silent(true);
    controller.falls_silent(true);
    let established =
        || agent.scrape().sum("graylag.tcp.handshake.count", &[("graylag.service.name", "dispatch")]);
    let before = established();
    eventually("it is told", SOON, || (!watch.raised().is_empty()).then_some(()));
    let told = watch.raised();
    assert_eq!(told.len(), 1, "{told:?}");
    let (name, about, blame) = &told[0];
    assert_eq!((name.as_str(), blame.as_str()), ("receive_silence", "peer_application"));
    assert!(about.ends_with(" dispatch client"), "{about}");
    let condition = agent.conditions().remove(0);
    assert!(
        condition.evidence.text.starts_with("3 of 3 connections silent for "),
        "{}",
        condition.evidence.text
    );
    assert_eq!(established() as u64, before as u64, "all its connections are those of before");
    let heard = [&pausing, &reconnecting].map(Dispatch::heard);
    thread::sleep(BEAT * 15);
    controller.falls_silent(false);
    eventually("it is over", SOON, || agent.conditions().is_empty().then_some(()));
    assert_eq!(watch.raised(), told, "nothing else was ever told");
    assert!([&pausing, &reconnecting].map(Dispatch::heard).iter().zip(heard).all(|(now, then)| *now > then));
}
