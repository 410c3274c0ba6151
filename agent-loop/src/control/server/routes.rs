//! The routes: a request becomes an [`Ask`], an [`Answer`] becomes JSON, a [`Problem`] an error object.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Limits, metrics, stream};
use crate::control::api::{
    Answer, Ask, Caller, ErrorBody, ErrorView, IssueAsk, KillRequest, Problem, Question, Questions, QueueView,
    RepoRequest, RunsView, StartRequest, StartedView, TaskRequest, TickRequest,
};
use crate::run::RunId;

/// Where questions are handed in.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) questions: Questions,
    pub(super) limits: Limits,
}

/// Who is on the connection, and until when the request has to be here.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) caller: Caller,
    pub(super) until: Instant,
}

/// An error object with its status.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// More clients than there are places.
    pub(super) fn full() -> Self {
        Problem::Unavailable("too many clients are connected: try again later".to_owned()).into()
    }

    fn stopping() -> Self {
        Problem::Unavailable("the daemon is stopping: try again when it is back".to_owned()).into()
    }

    fn late() -> Self {
        let text = "the daemon did not answer in time; what was asked may still be done: look before asking again";
        Problem::Unavailable(text.to_owned()).into()
    }

    /// The daemon answered something else than was asked.
    pub(super) fn astray() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer does not fit the question: a defect")
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, problem.code(), problem.to_string())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Problem::Bad(format!("reading the query: {}", rejection.body_text())).into()
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Problem::Bad(format!("reading the path: {}", rejection.body_text())).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = ErrorView { code: self.code.to_owned(), message: self.message };
        (self.status, Json(ErrorBody { error })).into_response()
    }
}

/// How long a status waits for what the issue loop says.
const SOON: Duration = Duration::from_secs(1);
/// How long a pass over all repositories may take: each is some requests to a forge.
const PASS: Duration = Duration::from_secs(120);

type Reply = Result<Response, Failure>;
type RunPath = Result<Path<String>, PathRejection>;

impl Desk {
    /// Hands a question in and waits for its answer.
    pub(super) async fn ask(&self, ask: Ask, from: Caller) -> Result<Answer, Failure> {
        self.ask_within(self.limits.answer, ask, from).await
    }

    async fn ask_within(&self, within: Duration, ask: Ask, from: Caller) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.questions.send(Question { ask, from, reply }).await.map_err(|_| Failure::stopping())?;
            answer.await.map_err(|_| Failure::stopping())?.map_err(Failure::from)
        };
        timeout(within, asking).await.unwrap_or_else(|_| Err(Failure::late()))
    }

    /// The body, of which only so much is ever held.
    async fn body<T: DeserializeOwned>(&self, peer: &Peer, request: Request) -> Result<T, Failure> {
        let most = self.limits.body_bytes;
        let collected = Limited::new(request.into_body(), most).collect();
        let bytes: Bytes = match timeout_at(peer.until, collected).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let text = format!("the body is longer than {most} bytes");
                return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text));
            }
            Ok(Err(error)) => return Err(Problem::Bad(format!("reading the body: {error}")).into()),
            Err(_) => return Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body came too slowly")),
        };
        serde_json::from_slice(&bytes).map_err(|error| Problem::Bad(format!("reading the body: {error}")).into())
    }
}

/// The routes as one peer sees them.
pub(super) fn router(desk: Desk, peer: Peer) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/runs", get(runs).post(start))
        .route("/v1/runs/{run}", get(run))
        .route("/v1/runs/{run}/tree", get(tree))
        .route("/v1/runs/{run}/logs", get(stream::logs))
        .route("/v1/runs/{run}/kill", post(kill))
        .route("/v1/queue", get(queue))
        .route("/v1/tasks", post(task))
        .route("/v1/tasks/{owner}/{name}/{number}", get(story))
        .route("/v1/repos", post(repo))
        .route("/v1/tick", post(tick))
        .route("/v1/events", get(stream::events))
        .route("/metrics", get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(peer))
        .with_state(desk)
}

async fn status(State(desk): State<Desk>, Extension(peer): Extension<Peer>) -> Reply {
    let queue = queue_soon(&desk, peer.caller.clone()).await;
    let Answer::Status(mut view) = desk.ask(Ask::Status, peer.caller).await? else { return Err(Failure::astray()) };
    view.forges = queue.into_iter().flat_map(|queue| queue.repos).map(Into::into).collect();
    Ok(Json(view).into_response())
}

/// The issues; none without a repository, or while the issue loop is busy: all the rest is told.
async fn queue_soon(desk: &Desk, caller: Caller) -> Option<QueueView> {
    match timeout(SOON, desk.ask(Ask::Issues(IssueAsk::Queue), caller)).await {
        Ok(Ok(Answer::Queue(queue))) => Some(queue),
        Ok(Ok(_) | Err(_)) | Err(_) => None,
    }
}

async fn metrics(State(desk): State<Desk>, Extension(peer): Extension<Peer>) -> Reply {
    let queue = queue_soon(&desk, peer.caller.clone()).await;
    let Answer::Status(view) = desk.ask(Ask::Status, peer.caller).await? else { return Err(Failure::astray()) };
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&view, queue.as_ref())).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunsQuery {
    #[serde(default)]
    all: bool,
    #[serde(default = "some_runs")]
    limit: u32,
}

const fn some_runs() -> u32 {
    100
}

/// The most runs of one answer.
pub(in crate::control) const MOST_RUNS: u32 = 1000;

async fn runs(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Reply {
    let Query(RunsQuery { all, limit }) = query?;
    let Answer::Runs(runs) = desk.ask(Ask::Runs { all, limit: limit.min(MOST_RUNS) }, peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(RunsView { runs }).into_response())
}

async fn run(State(desk): State<Desk>, Extension(peer): Extension<Peer>, path: RunPath) -> Reply {
    let Answer::Run(view) = desk.ask(Ask::Run(run_id(path)?), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn tree(State(desk): State<Desk>, Extension(peer): Extension<Peer>, path: RunPath) -> Reply {
    let Answer::Tree(view) = desk.ask(Ask::Tree(run_id(path)?), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn start(State(desk): State<Desk>, Extension(peer): Extension<Peer>, request: Request) -> Reply {
    writer(&peer.caller)?;
    let wish: StartRequest = desk.body(&peer, request).await?;
    wish.check()?;
    let Answer::Started { run } = desk.ask(Ask::Start(Box::new(wish)), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok((StatusCode::CREATED, Json(StartedView { run })).into_response())
}

async fn kill(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    path: RunPath,
    request: Request<Body>,
) -> Reply {
    writer(&peer.caller)?;
    let run = run_id(path)?;
    let wish: KillRequest = desk.body(&peer, request).await?;
    wish.check()?;
    let Answer::Killing(view) =
        desk.ask(Ask::Kill { run, reason: wish.reason, dry_run: wish.dry_run }, peer.caller).await?
    else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn queue(State(desk): State<Desk>, Extension(peer): Extension<Peer>) -> Reply {
    let Answer::Queue(view) = desk.ask(Ask::Issues(IssueAsk::Queue), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn story(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Reply {
    let Path((owner, name, number)) = path?;
    let issue = format!("{owner}/{name}#{number}");
    let issue = issue.parse().map_err(|error: crate::work::NotAName| Problem::Bad(error.to_string()))?;
    let Answer::Story(view) = desk.ask(Ask::Issues(IssueAsk::Story(issue)), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn task(State(desk): State<Desk>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Reply {
    writer(&peer.caller)?;
    let TaskRequest { issue, verb } = desk.body(&peer, request).await?;
    let issue = issue.parse().map_err(|error: crate::work::NotAName| Problem::Bad(error.to_string()))?;
    let Answer::Task(view) = desk.ask(Ask::Issues(IssueAsk::Act(issue, verb)), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn repo(State(desk): State<Desk>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Reply {
    writer(&peer.caller)?;
    let RepoRequest { repo, verb } = desk.body(&peer, request).await?;
    let repo = repo.parse().map_err(|error: crate::work::NotAName| Problem::Bad(error.to_string()))?;
    let Answer::Repo(view) = desk.ask(Ask::Issues(IssueAsk::Steer(repo, verb)), peer.caller).await? else {
        return Err(Failure::astray());
    };
    Ok(Json(view).into_response())
}

async fn tick(State(desk): State<Desk>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Reply {
    writer(&peer.caller)?;
    let TickRequest { dry_run } = desk.body(&peer, request).await?;
    let asked = desk.ask_within(PASS, Ask::Issues(IssueAsk::Tick { dry_run }), peer.caller);
    let Answer::Tick(view) = asked.await? else { return Err(Failure::astray()) };
    Ok(Json(view).into_response())
}

async fn no_such_path() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "not_found", "there is nothing under this path: they begin with /v1/")
}

async fn wrong_method() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this path is not for this method")
}

/// Refuses who may only read, before a byte of the body is looked at.
fn writer(caller: &Caller) -> Result<(), Failure> {
    if caller.may_write {
        return Ok(());
    }
    let text = format!("user {} may look, not start or stop: that is for root and the configured owner", caller.uid);
    Err(Problem::Forbidden(text).into())
}

/// The id of a run, as it is written by us.
pub(super) fn run_id(path: RunPath) -> Result<String, Failure> {
    let Path(text) = path?;
    let id: RunId = text.parse().map_err(|_| {
        Problem::Bad(format!("{text:?} is not the id of a run: it has 26 characters, see `agent-loop ps`"))
    })?;
    Ok(id.to_string())
}
