//! Connections of the API: how many there may be, and how long each may keep it waiting. Whoever may open the socket may
//! forget to close it; descriptors are what the collector needs too.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};

/// Connections at once, of all listeners together: well below the usual limit of 1024 descriptors.
pub const MOST: usize = 512;
/// A request's head has to come within this, and the next one on the same connection too.
const REQUEST: Duration = Duration::from_secs(30);
/// A reader that takes nothing for this long, while there is something to take, is gone.
pub const READER: Duration = Duration::from_secs(10);
/// What one too many hears.
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\n\
                         retry-after: 1\r\n\r\ntoo many connections are open already\n";

/// Serves until told to stop; then what is under way is finished, and streams are ended by their own handlers.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    loop {
        let mut stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = until(stopped.clone()) => break,
        };
        // Those that have ended leave nothing behind.
        while open.try_join_next().is_some() {}
        if let Ok(place) = places.clone().try_acquire_owned() {
            open.spawn(connection(stream, router.clone(), stopped.clone(), place));
        } else {
            // A fresh socket has room for this: it is written at once or not at all.
            let written = stream.write_all(REFUSAL);
            let _ = tokio::time::timeout(Duration::ZERO, written).await;
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Waits for the word to stop.
pub async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn connection<S>(
    stream: S,
    router: Router,
    stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST);
    let served =
        builder.serve_connection(TokioIo::new(Watched::new(stream)), TowerToHyperService::new(router));
    let mut served = pin!(served);
    // An error here is the reader's: it went, or it was too slow.
    tokio::select! {
        _ = served.as_mut() => {}
        () = until(stopped) => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

/// A stream whose writes fail where its reader takes nothing for [`READER`].
struct Watched<S> {
    stream: S,
    /// Runs while a write waits.
    patience: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    fn new(stream: S) -> Self {
        Self { stream, patience: Box::pin(sleep(READER)), waiting: false }
    }

    /// Turns a wait into an error when it has lasted too long.
    fn within(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.waiting = false;
            return result;
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.patience.as_mut().reset(Instant::now() + READER);
        }
        ready!(self.patience.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.within(context, result)
    }
}
