//! The local API: HTTP over a Unix socket, and on a loopback port if asked for. What a router on this host reads never
//! waits for OTLP.

mod client;
mod connections;
pub mod node;
pub mod path_map;
pub mod prometheus;
mod schema;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError};
pub use schema::schema;
pub use server::{Listening, Server, ServerError};

use std::time::Duration;

use crate::{
    model::{
        avoid::{Avoid, Avoided},
        status::{Message, NodeStatus, Status},
    },
    telemetry::{Point, catalog::Id},
};

/// Where the API gets what it says from. Calls are short.
pub trait Source: Send + Sync + 'static {
    /// For `/v1/status`.
    fn status(&self) -> Status;
    /// How this node serves its users, for load balancers.
    fn health(&self) -> NodeStatus;
    /// Takes what a controller avoids, for `/v1/avoid`.
    fn avoid(&self, said: &Avoid) -> Avoided;
    /// First message of `/v1/watch`.
    fn state(&self) -> Message;
    /// For `/metrics`.
    fn visit(&self, visit: &mut dyn FnMut(Id, Vec<Point>));
    /// Age of the last look at the kernel, for `/healthz` and `/readyz`; `None` before the first.
    fn age(&self) -> Option<Duration>;
    /// From which age on the collector is stuck.
    fn stale_after(&self) -> Duration;
    /// Why handshakes cannot be seen on this host, where they cannot: `/readyz` then says no.
    fn not_ready(&self) -> Option<String>;
}
