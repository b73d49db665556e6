//! Load at the pace of voice.

use std::{sync::atomic::Ordering, thread, time::Duration};

use crate::background::Background;

/// Something that is done every 20 ms, the packet interval of voice, until this goes out of scope.
pub struct Every20ms(#[expect(dead_code, reason = "it is there to go out of scope")] Background<()>);

impl Every20ms {
    /// Begins; `work` is told how often it ran before.
    pub fn start(mut work: impl FnMut(u64) + Send + 'static) -> Self {
        Self(Background::start(move |stop| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                work(number);
                number += 1;
                thread::sleep(Duration::from_millis(20));
            }
        }))
    }
}
