//! Commands that read a running agent.

use std::{
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Result;

use crate::{
    feed::Client,
    model::status::{ConditionStatus, Message, NodeStatus, PathStatus, Status},
    run, view,
};

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// `graylag top`
pub fn top(socket: &Path) -> Result<()> {
    struct Remote {
        runtime: tokio::runtime::Runtime,
        client: Client,
    }
    impl view::Feed for Remote {
        fn status(&mut self) -> Result<Status, String> {
            self.runtime.block_on(self.client.status()).map_err(|error| error.to_string())
        }
    }
    static STOP: AtomicBool = AtomicBool::new(false);
    let mut remote = Remote { runtime: runtime()?, client: Client::new(socket) };
    // Without an agent there is nothing to show: say so before the screen is taken.
    remote.runtime.block_on(remote.client.status())?;
    run::on_termination(|| STOP.store(true, Ordering::Relaxed))?;
    view::run(&mut remote, &STOP)?;
    Ok(())
}

/// `graylag status`
pub fn status(socket: &Path, json: bool) -> Result<()> {
    let status = runtime()?.block_on(Client::new(socket).status())?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        const WIDTH: u16 = 120;
        print!("{}", view::print_once(&status, WIDTH));
    }
    Ok(())
}

/// `graylag status --healthy` and `--ready`: says nothing where it is so.
pub fn affirms(socket: &Path, path: &str) -> Result<()> {
    Ok(runtime()?.block_on(Client::new(socket).affirms(path))?)
}

/// `graylag watch`
pub fn watch(socket: &Path, json: bool) -> Result<()> {
    let mut out = std::io::stdout();
    runtime()?.block_on(Client::new(socket).watch(|line, message| {
        let written = if json {
            writeln!(out, "{line}")
        } else {
            match message {
                Some(message) => plain(&message).iter().try_for_each(|line| writeln!(out, "{line}")),
                None => writeln!(out, "{line}"),
            }
        };
        // A closed pipe ends it.
        written.and_then(|()| out.flush()).is_ok()
    }))?;
    Ok(())
}

/// A message in words, a line for each thing it tells.
pub fn plain(message: &Message) -> Vec<String> {
    match message {
        Message::State { stamp, node, conditions, paths, health } => {
            let stand = match conditions.len() {
                0 => "no condition stands".to_owned(),
                1 => "1 condition stands".to_owned(),
                n => format!("{n} conditions stand"),
            };
            let mut lines = vec![format!("{} {node}: {stand}", stamp.time)];
            lines.extend(conditions.iter().map(|c| format!("  {}", sentence(&c.phase, c))));
            let troubled = paths.iter().filter(|path| is_trouble(&path.state));
            lines.extend(troubled.map(|path| format!("  {}", path_sentence(&path.state, path))));
            if !is_usual(&health.state) {
                lines.push(format!("  {}", node_sentence(&health.state, health)));
            }
            lines
        }
        Message::Transition { stamp, to, condition, .. } => {
            vec![format!("{} {}", stamp.time, sentence(to, condition))]
        }
        Message::Path { stamp, to, path, .. } => vec![format!("{} {}", stamp.time, path_sentence(to, path))],
        Message::Node { stamp, to, health, .. } => {
            vec![format!("{} {}", stamp.time, node_sentence(to, health))]
        }
        Message::Heartbeat { .. } => Vec::new(),
    }
}

fn is_trouble(state: &str) -> bool {
    matches!(state, "degraded" | "down" | "recovering")
}

fn is_usual(state: &str) -> bool {
    matches!(state, "healthy" | "unknown" | "")
}

/// A path's state on one line.
fn path_sentence(state: &str, path: &PathStatus) -> String {
    let address = path.address.as_ref().map_or(String::new(), |address| format!(" {address}"));
    let proven = path.proven.map_or("never".to_owned(), |age| format!("{age:.1} s ago"));
    format!("path {}{address} {}: {state}; last proven to deliver {proven}", path.peer, path.direction)
}

/// The node's state on one line.
fn node_sentence(state: &str, health: &NodeStatus) -> String {
    let reasons = if health.reasons.is_empty() { "" } else { "; " };
    format!("this node: {state}, {} % of its load{reasons}{}", health.weight, health.reasons.join("; "))
}

/// A condition on one line.
fn sentence(phase: &str, condition: &ConditionStatus) -> String {
    let target = &condition.target;
    let parts = [&target.peer, &target.address, &target.service, &target.reason, &target.direction];
    let about: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    let role = target.role.as_ref().map_or(String::new(), |role| format!(" ({role})"));
    let confidence = if condition.confidence == "low" { ", low confidence" } else { "" };
    format!(
        "{} {}: {}{role}; blame {}{confidence}; {}",
        phase.to_uppercase(),
        condition.name,
        about.join(" "),
        condition.blame,
        condition.evidence.text
    )
}
