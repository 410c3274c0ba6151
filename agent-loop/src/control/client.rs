//! The client's end of the control socket, for the command line: one connection for each question.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::{
    ErrorBody, KillRequest, KillView, QueueView, RepoRequest, RepoView, RunView, RunsView, StartRequest, StartedView,
    StatusView, StoryView, TaskRequest, TaskView, TickRequest, TickView, TreeView,
};
use super::server::MOST_RUNS;
use crate::work::IssueKey;

/// How long an answer may take: longer than the daemon's own limit, which has the better message.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest answer that is held.
const LONGEST: usize = 64 << 20;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no daemon answers on {}: start it with `agent-loop serve`, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error(
        "not permitted to connect to {}: ask as root, as the configured owner or as a member of the socket's group",
        .0.display()
    )]
    NotPermitted(PathBuf),
    /// The daemon answered with an error.
    #[error("{message}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// The word for programs.
        code: String,
        /// The sentence for people.
        message: String,
    },
    /// The answer did not come, not whole, or is not understood.
    #[error("{doing}: {why}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        why: String,
    },
}

fn broken(doing: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> ClientError {
    move |why| ClientError::Broken { doing, why: why.to_string() }
}

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// One of the two streams of a run's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Its name in the interface.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Client {
    /// Names the socket; connects to nothing yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for the daemon's state.
    ///
    /// # Errors
    /// [`ClientError`], as for every question.
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        self.get("/v1/status").await
    }

    /// Asks for the open runs, with `all` for the latest ended ones too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn runs(&self, all: bool) -> Result<RunsView, ClientError> {
        self.get(&format!("/v1/runs?all={all}&limit={MOST_RUNS}")).await
    }

    /// Asks for a run by its whole id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn run(&self, run: &str) -> Result<RunView, ClientError> {
        self.get(&format!("/v1/runs/{run}")).await
    }

    /// Asks for the live processes of a run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tree(&self, run: &str) -> Result<TreeView, ClientError> {
        self.get(&format!("/v1/runs/{run}/tree")).await
    }

    /// Starts a run.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Broken`] it may have been started all the same.
    pub async fn start(&self, wish: &StartRequest) -> Result<StartedView, ClientError> {
        self.post("/v1/runs", wish).await
    }

    /// Stops a run, or says what that would do.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill(&self, run: &str, wish: &KillRequest) -> Result<KillView, ClientError> {
        self.post(&format!("/v1/runs/{run}/kill"), wish).await
    }

    /// Asks for the repositories, their tasks and what waits.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn queue(&self) -> Result<QueueView, ClientError> {
        self.get("/v1/queue").await
    }

    /// Asks what became of an issue so far.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn story(&self, issue: &IssueKey) -> Result<StoryView, ClientError> {
        let IssueKey { repo, number } = issue;
        self.get(&format!("/v1/tasks/{}/{}/{number}", repo.owner(), repo.name())).await
    }

    /// Has something done with the task of an issue.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn task(&self, wish: &TaskRequest) -> Result<TaskView, ClientError> {
        self.post("/v1/tasks", wish).await
    }

    /// Has something done with a repository.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn repo(&self, wish: &RepoRequest) -> Result<RepoView, ClientError> {
        self.post("/v1/repos", wish).await
    }

    /// Has every repository looked at now; answered once that was done.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn tick(&self, wish: TickRequest) -> Result<TickView, ClientError> {
        let body = serde_json::to_vec(&wish).map_err(|error| broken("writing the question")(error.into()))?;
        // The daemon says itself when that takes too long.
        self.read(Method::POST, "/v1/tick", body.into()).await
    }

    /// Reads lines of the event log as bytes; with `follow` until the daemon ends.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, follow: bool) -> Result<Pieces, ClientError> {
        let path = format!("/v1/events?follow={follow}");
        Ok(Pieces(timely(self.send(Method::GET, &path, Bytes::new())).await?.into_body()))
    }

    /// Reads a run's output from byte `from`; with `follow` until the run is over.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn logs(&self, run: &str, stream: OutputStream, follow: bool, from: u64) -> Result<Pieces, ClientError> {
        let stream = stream.word();
        let path = format!("/v1/runs/{run}/logs?stream={stream}&follow={follow}&from={from}");
        Ok(Pieces(timely(self.send(Method::GET, &path, Bytes::new())).await?.into_body()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        timely(self.read(Method::GET, path, Bytes::new())).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| broken("writing the question")(error.into()))?;
        timely(self.read(Method::POST, path, body.into())).await
    }

    async fn read<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let whole = whole(self.send(method, path, body).await?).await?;
        serde_json::from_slice(&whole).map_err(|error| broken("reading the answer")(error.into()))
    }

    /// Sends a question; an answer that is an error becomes one here.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken("connecting")(error.into()))?;
        // Ends with the connection; what goes wrong there is seen by whoever reads the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent-loop")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| broken("writing the question")(error.into()))?;
        let answer = sender.send_request(request).await.map_err(|error| broken("asking the daemon")(error.into()))?;
        let status = answer.status();
        if status.is_success() { Ok(answer) } else { Err(problem(status, &whole(answer).await?)) }
    }

    fn not_connected(&self, error: &io::Error) -> ClientError {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            ClientError::NotRunning(self.socket.clone())
        } else if kind == io::ErrorKind::PermissionDenied {
            ClientError::NotPermitted(self.socket.clone())
        } else {
            ClientError::Broken { doing: "connecting to the daemon", why: error.to_string() }
        }
    }
}

/// The pieces of an answer without an end.
#[derive(Debug)]
pub struct Pieces(Incoming);

impl Pieces {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`] where the daemon broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.frame().await {
            let frame = frame.map_err(|error| broken("reading on")(error.into()))?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

async fn timely<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let late = || ClientError::Broken { doing: "waiting for the daemon's answer", why: "it takes too long".to_owned() };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()))
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ClientError::Broken { doing: "reading the answer", why: format!("longer than {LONGEST} bytes") })
        }
        Err(error) => Err(broken("reading the answer")(error)),
    }
}

fn problem(status: StatusCode, body: &[u8]) -> ClientError {
    let status = status.as_u16();
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => ClientError::Answered { status, code: error.code, message: error.message },
        Err(_) => ClientError::Answered {
            status,
            code: "unknown".to_owned(),
            message: format!("the daemon answered with HTTP status {status} and no reason"),
        },
    }
}
