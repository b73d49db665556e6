//! The terminal: taken, given back whatever happens, and the loop in between.

use std::{
    io::{self, IsTerminal, Write, stdout},
    mem::ManuallyDrop,
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, Event},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use super::{
    Feed,
    draw::draw,
    keys::{Reaction, on_key},
    snapshot::Snapshot,
    state::{Silence, View},
    theme::Theme,
};

/// How often the feed is asked.
const REFRESH: Duration = Duration::from_millis(500);
/// How long a request to stop may go unnoticed.
const ATTENTION: Duration = Duration::from_millis(100);

/// Whether there is a terminal to show anything on.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`] if standard output is none.
pub fn available() -> io::Result<()> {
    if stdout().is_terminal() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "the live view needs a terminal, and standard output is none; `graylag status` prints the same once",
    ))
}

/// Shows a live view until the user quits or `stop` is set. The terminal is as before when this returns, and when the
/// process panics.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`] if standard output is no terminal; else what the terminal reports.
pub fn run(feed: &mut dyn Feed, stop: &AtomicBool) -> io::Result<()> {
    available()?;
    let _held = Held::take()?;
    // Never dropped: where the terminal is gone, its drop complains on standard error, gone too, and that panics. The
    // cursor it would show is shown by `Held`.
    let mut terminal = ManuallyDrop::new(Terminal::new(CrosstermBackend::new(stdout()))?);
    let mut session = Session::new();
    let mut redraw = true;
    while !stop.load(Ordering::Relaxed) && HELD.load(Ordering::Relaxed) {
        if redraw {
            terminal.draw(|frame| {
                session.view.settle(session.snapshot.as_ref(), frame.area());
                draw(frame, session.snapshot.as_ref(), &session.view);
            })?;
        }
        redraw = session.ask(feed);
        let patience = session.due.saturating_duration_since(Instant::now()).min(ATTENTION);
        while !redraw && happened(patience)? {
            match event::read()? {
                Event::Key(key) => {
                    if on_key(&mut session.view, key, session.snapshot.as_ref()) == Reaction::Quit {
                        return Ok(());
                    }
                    redraw = true;
                }
                Event::Resize(..) => redraw = true,
                _ => {}
            }
        }
    }
    Ok(())
}

/// What the loop knows.
struct Session {
    view: View,
    snapshot: Option<Snapshot>,
    heard: Option<Instant>,
    due: Instant,
}

impl Session {
    fn new() -> Self {
        Self { view: View::new(Theme::from_environment()), snapshot: None, heard: None, due: Instant::now() }
    }

    /// Asks the feed if it is time to. Says whether there is something new to draw.
    fn ask(&mut self, feed: &mut dyn Feed) -> bool {
        if Instant::now() < self.due {
            return false;
        }
        if !self.view.paused {
            match feed.status() {
                Ok(status) => {
                    self.snapshot = Some(Snapshot::new(status));
                    self.heard = Some(Instant::now());
                    self.view.silence = None;
                }
                Err(error) => {
                    let seconds = self.heard.map(|at| at.elapsed().as_secs_f64());
                    self.view.silence = Some(Silence { error, seconds });
                }
            }
        }
        // From now, not from when it was due: a slow agent is not asked without a pause.
        self.due = Instant::now() + REFRESH;
        !self.view.paused
    }
}

/// Whether there is an event to read.
fn happened(patience: Duration) -> io::Result<bool> {
    match event::poll(patience) {
        // A signal: the caller's handler has set `stop`, or it was not for us.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        result => result,
    }
}

/// Whether the terminal is ours. The panic hook gives it back before it prints, even where panics abort and nothing is
/// dropped; the loop then stops drawing over the message.
static HELD: AtomicBool = AtomicBool::new(false);

/// The terminal, until dropped.
struct Held;

impl Held {
    fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                give_back();
                previous(info);
            }));
        });
        HELD.store(true, Ordering::Relaxed);
        // Made before anything is changed, so that a failure half-way is undone too.
        let held = Self;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    if HELD.swap(false, Ordering::Relaxed) {
        // There is nobody left to tell of a failure.
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
        let _ = stdout().flush();
    }
}
