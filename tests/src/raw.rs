//! Frames put on a link as they are, through a packet socket (`AF_PACKET`).

use std::{
    io::{BufWriter, Write},
    process::{Command, Stdio},
};

use crate::net::Host;

/// Python has the address of a packet socket; our libraries would need `unsafe` for it.
const SEND: &str = "
import socket, sys, time
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(('eth0', 0))
for i, line in enumerate(sys.stdin):
    link.send(bytes.fromhex(line))
    if i % 20 == 19: time.sleep(0.001)
";

/// Sends frames from a host's `eth0`, slowly enough for any queue on the way.
pub fn send(host: &Host, frames: &[Vec<u8>]) {
    let mut command: Command = host.command("/usr/bin/python3");
    let mut child = command.args(["-c", SEND]).stdin(Stdio::piped()).spawn().expect("python3");
    let mut stdin = BufWriter::new(child.stdin.take().expect("stdin"));
    for frame in frames {
        for byte in frame {
            write!(stdin, "{byte:02x}").expect("python3 reads");
        }
        writeln!(stdin).expect("python3 reads");
    }
    stdin.flush().expect("python3 reads");
    drop(stdin);
    assert!(child.wait().expect("python3").success());
}
