//! Retransmissions against netfilter's own count of what it dropped: at 0, 0.5, 2 and 10 % loss, both families.
//!
//! Netfilter sees every segment that reaches the server and drops some; the sender's kernel says how many it sent for the
//! first time. What was sent again is the difference, and it is exact however often a segment is dropped. Spurious is what
//! the peer reported as received twice (DSACK, RFC 2883): a link between two CPUs reorders, so there are spurious
//! retransmissions without any loss.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::Setup,
    net::{Pair, address},
    nft::Nft,
    traffic::{connect, listen},
};

const PORT: u16 = 8080;

fn transfer(per_thousand: u32, bytes: usize) {
    // What occupies sequence space, and so is sent again when lost: data and FIN.
    const DATA: &str = "tcp dport 8080 meta length > 200";
    const FIN: &str = "tcp dport 8080 meta length <= 200 tcp flags & fin == fin";
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.client]).alone().start();
    let nft = Nft::new(&pair.server);
    nft.apply("add counter inet t seen");
    for matching in [DATA, FIN] {
        nft.apply(&format!("add rule inet t in {matching} counter name \"seen\""));
    }
    if per_thousand > 0 {
        nft.rule("lost", &format!("{DATA} numgen random mod 1000 < {per_thousand}"), "drop");
    }
    for server in [address::SERVER_V4, address::SERVER_V6] {
        let listener = listen(&pair.server, server, PORT, 16);
        let reader = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 16];
            let mut total = 0;
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return total,
                    n => total += n,
                }
            }
        });
        let mut stream = connect(&pair.client, server, PORT).unwrap();
        stream.write_all(&vec![1; bytes]).unwrap();
        drop(stream);
        assert_eq!(reader.join().unwrap(), bytes);
    }
    let lost = if per_thousand > 0 { nft.count("lost") } else { 0 };
    assert!(lost > 0 || per_thousand == 0, "the fault did nothing");
    let sent_again = nft.count("seen") - pair.client.tcp_ext("TCPOrigDataSent");
    assert!(sent_again >= lost);
    let reported_twice = pair.client.tcp_ext("TCPDSACKRecvSegs");
    agent.until(Duration::from_secs(30), &(sent_again, reported_twice), |scrape| {
        let kind =
            |k| scrape.sum("graylag.tcp.segment.retransmitted", &[("graylag.retransmit.type", k)]) as u64;
        (kind("fast") + kind("timeout") + kind("tail_loss_probe"), kind("spurious"))
    });
}

#[test]
fn no_loss_no_retransmission() {
    transfer(0, 20_000_000);
}

#[test]
fn half_a_percent() {
    transfer(5, 6_000_000);
}

#[test]
fn two_percent() {
    transfer(20, 3_000_000);
}

#[test]
fn ten_percent() {
    transfer(100, 600_000);
}

/// What hosts retransmit that nobody watches is no event that the agent lost.
#[test]
fn out_of_scope_is_not_lost() {
    const BYTES: usize = 600_000;
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.server]).alone().start();
    Nft::new(&pair.server).rule("lost", "tcp dport 8080 meta length > 200 numgen inc mod 10 == 0", "drop");
    let listener = listen(&pair.server, address::SERVER_V4, PORT, 16);
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        received.len()
    });
    let mut stream = connect(&pair.client, address::SERVER_V4, PORT).unwrap();
    stream.write_all(&vec![1; BYTES]).unwrap();
    drop(stream);
    assert_eq!(reader.join().unwrap(), BYTES);
    let sent_again = pair.client.tcp("RetransSegs");
    assert!(sent_again >= 20, "{sent_again}");
    // Two looks later; a run that the kernel skipped elsewhere on this host may be among them.
    thread::sleep(Duration::from_secs(1));
    let lost = agent.scrape().sum("graylag.agent.event.lost", &[]) as u64;
    assert!(lost * 4 < sent_again, "{lost} lost, {sent_again} sent again by a host out of scope");
}
