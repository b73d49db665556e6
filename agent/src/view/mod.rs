//! stub
use crate::model::status::Status;
pub trait Feed { fn status(&mut self) -> Result<Status, String>; }
pub fn run(_f: &mut dyn Feed, _s: &std::sync::atomic::AtomicBool) -> std::io::Result<()> { Ok(()) }
pub fn render_once(s: &Status, _w: u16, _h: u16) -> String { format!("{s:#?}") }
