//! Diagnostics: to stderr, or kept until the terminal view is gone.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Lines kept while the view has the screen.
const KEPT: usize = 200;

/// Lines said while nobody could see them.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<VecDeque<u8>>>);

impl Kept {
    /// Says them now.
    pub fn print(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = io::stderr().write_all(lines.make_contiguous());
        lines.clear();
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(bytes);
        while lines.iter().filter(|byte| **byte == b'\n').count() > KEPT {
            while lines.pop_front().is_some_and(|byte| byte != b'\n') {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts logging as `RUST_LOG` says, by default from `info` on, and whatever the kernel programs were told to say; where `hidden`, lines are kept and returned later.
pub fn start(hidden: bool) -> Kept {
    let kept = Kept::default();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,graylag_ebpf=trace"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let _ = if hidden {
        builder.with_ansi(false).with_writer(kept.clone()).try_init()
    } else {
        builder.with_ansi(false).with_writer(io::stderr).try_init()
    };
    kept
}
