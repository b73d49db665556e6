//! What is published: the catalog, declared once, and the points for it.

mod agent;
pub mod catalog;
mod media;
mod paths;
mod points;
mod render;

pub use points::{
    AgentFacts, AttributeValue, Attributes, Known, Lengths, Point, Value, Whose, of_condition, of_leg,
    of_path, of_subject, transport_name,
};
pub use render::{json, markdown, plain};
