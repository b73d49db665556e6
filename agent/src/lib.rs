//! The user half of graylag.
pub mod aggregate;
pub mod attribution;
pub mod cli;
pub mod collect;
pub mod config;
pub mod engine;
pub mod export;
pub mod feed;
pub mod health;
pub mod kernel;
pub mod model;
pub mod probe;
pub mod run;
pub mod telemetry;
pub mod view;
