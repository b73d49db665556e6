//! The user half of graylag.
pub mod aggregate;
pub mod collect;
pub mod config;
pub mod health;
pub mod kernel;
pub mod model;
pub mod telemetry;
