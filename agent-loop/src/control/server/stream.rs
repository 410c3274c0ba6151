//! The answers without an end: lines of the event log, and bytes of a run's output.
//!
//! Each has a task that feeds a short queue, and ends when the client is gone. Nothing waits for that task.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::routes::{Desk, Failure, Peer, run_id};
use crate::control::api::{Answer, Ask, EventFeed, LogFiles, MissedView};
use crate::control::feed::NoLine;

/// Pieces that wait in the queue of a client.
const QUEUE: usize = 8;

/// Bytes of output in one piece.
const PIECE: usize = 64 << 10;

/// So many looks at a followed file go by between questions whether the run goes on.
const LOOKS: u32 = 5;

type Piece = io::Result<Bytes>;

/// A body that is fed by a task.
struct Fed(mpsc::Receiver<Piece>);

impl hyper::body::Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn fed(kind: &'static str, pieces: mpsc::Receiver<Piece>) -> Response {
    ([(header::CONTENT_TYPE, kind)], Body::new(Fed(pieces))).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(default)]
    follow: bool,
}

pub(super) async fn events(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(EventsQuery { follow }) = query?;
    let Answer::Events(feed) = desk.ask(Ask::Events, peer.caller).await? else { return Err(Failure::astray()) };
    let (sender, pieces) = mpsc::channel(QUEUE);
    tokio::spawn(feed_events(feed, follow, sender));
    Ok(fed("application/x-ndjson", pieces))
}

/// Hands lines on, until the client is gone, the daemon ends, or the client has fallen behind.
async fn feed_events(feed: EventFeed, follow: bool, client: mpsc::Sender<Piece>) {
    let EventFeed { recent, mut live } = feed;
    for text in recent {
        if client.send(Ok(line(&text))).await.is_err() {
            return;
        }
    }
    loop {
        let next = if follow {
            tokio::select! {
                () = client.closed() => return,
                next = live.next() => next,
            }
        } else {
            live.try_next()
        };
        let last = match next {
            Ok(text) => {
                if client.send(Ok(line(&text))).await.is_err() {
                    return;
                }
                continue;
            }
            Err(NoLine::Closed | NoLine::Empty) => return,
            // Those that are still there would have a hole before them: it gets none of them either.
            Err(NoLine::Missed(lines)) => lines + live.waiting(),
        };
        let missed = MissedView { kind: MissedView::KIND.to_owned(), lines: last };
        let text = serde_json::to_string(&missed).map_err(io::Error::from);
        let _ = client.send(text.map(|text| line(&text))).await;
        return;
    }
}

fn line(text: &str) -> Bytes {
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    line.into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    #[serde(default)]
    stream: Stream,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    from: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stream {
    #[default]
    Stdout,
    Stderr,
}

impl Stream {
    fn of(self, files: LogFiles) -> PathBuf {
        match self {
            Self::Stdout => files.stdout,
            Self::Stderr => files.stderr,
        }
    }
}

pub(super) async fn logs(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let run = run_id(path)?;
    let Query(LogsQuery { stream, follow, from }) = query?;
    let files = log_files(&desk, &peer, &run).await?;
    let (sender, pieces) = mpsc::channel(QUEUE);
    let open = files.open && follow;
    let output = Output { path: stream.of(files), file: None, at: from };
    tokio::spawn(async move {
        if let Err(error) = feed_output(output, open, (&desk, &peer, &run), &sender).await {
            // The connection is broken off, so that nobody takes this for the end of the output.
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(fed("application/octet-stream", pieces))
}

async fn log_files(desk: &Desk, peer: &Peer, run: &str) -> Result<LogFiles, Failure> {
    let Answer::Logs(files) = desk.ask(Ask::Logs(run.to_owned()), peer.caller.clone()).await? else {
        return Err(Failure::astray());
    };
    Ok(files)
}

/// A file of output on its way to a client.
struct Output {
    path: PathBuf,
    file: Option<Arc<File>>,
    at: u64,
}

impl Output {
    /// The next piece; empty at the end, and where there is no file yet. Reads beside the event loop.
    async fn next(&mut self, most: u64) -> io::Result<Bytes> {
        let (path, file, at) = (self.path.clone(), self.file.clone(), self.at);
        let size = usize::try_from(most).map_or(PIECE, |most| most.min(PIECE));
        let read = tokio::task::spawn_blocking(move || {
            let file = match file.map_or_else(|| open(&path), |file| Ok(Some(file)))? {
                Some(file) => file,
                None => return Ok((None, Bytes::new())),
            };
            let mut piece = vec![0; size];
            let length = file.read_at(&mut piece, at)?;
            piece.truncate(length);
            Ok((Some(file), Bytes::from(piece)))
        });
        let (file, piece) = read.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.file = file;
        self.at += piece.len() as u64;
        Ok(piece)
    }

    async fn length(&self) -> io::Result<u64> {
        let path = self.path.clone();
        let look = tokio::task::spawn_blocking(move || open(&path)?.map_or(Ok(0), |file| Ok(file.metadata()?.len())));
        look.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Opens a file of output; there is none before the run's birth.
fn open(path: &std::path::Path) -> io::Result<Option<Arc<File>>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(Arc::new(file))),
        Ok(_) => Err(io::Error::other("the output is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Hands output on: to the end that the file has now, or with `open` until the run is over.
async fn feed_output(
    mut output: Output,
    mut open: bool,
    (desk, peer, run): (&Desk, &Peer, &str),
    client: &mpsc::Sender<Piece>,
) -> io::Result<()> {
    // Who does not follow gets what is there now, however fast it grows.
    let mut left = if open { u64::MAX } else { output.length().await?.saturating_sub(output.at) };
    let mut looks = 0;
    loop {
        let piece = output.next(left).await?;
        if !piece.is_empty() {
            left = left.saturating_sub(piece.len() as u64);
            if client.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        if !open {
            return Ok(());
        }
        tokio::select! {
            () = client.closed() => return Ok(()),
            () = tokio::time::sleep(desk.limits.poll) => {}
        }
        looks += 1;
        if looks % LOOKS == 0 {
            // Once it is over the file is read to its end, which comes after this answer.
            let files = log_files(desk, peer, run).await;
            open = files.map_err(|_| io::Error::other("the daemon does not answer"))?.open;
        }
    }
}
