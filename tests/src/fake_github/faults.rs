//! What goes wrong, and when: a script of faults, each for one request.

use serde_json::{Value, json};

use super::world::World;
use crate::http::{Reply, Request};

/// What somebody does to the forge between two steps of the client.
pub type Deed = Box<dyn FnOnce(&mut World) + Send>;

/// Which request a fault is for.
#[derive(Clone, Debug)]
pub struct When {
    method: String,
    path: String,
    /// What its path or body holds.
    about: String,
    /// How many such requests go before it.
    skip: usize,
}

impl When {
    /// The path of whatever is beside the API: git, told apart by `about`. Only [`Fault::Before`] is played there.
    pub const GIT: &str = "git";

    /// The next request of this method whose path, in the form of GitHub's description, ends so:
    /// `When::next("put", "/merge")`, `When::next("get", "/issues/{issue_number}")`. An empty path is any.
    #[must_use]
    pub fn next(method: &str, path: &str) -> Self {
        Self { method: method.to_ascii_lowercase(), path: path.to_owned(), about: String::new(), skip: 0 }
    }

    /// Only one whose own path, or whose body, holds this name: one issue's among those of several.
    #[must_use]
    pub fn about(mut self, text: &str) -> Self {
        text.clone_into(&mut self.about);
        self
    }

    /// So many of them later.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }
}

/// What goes wrong with a request.
pub enum Fault {
    /// It is not done, and this is answered.
    Instead(Answer),
    /// It is done, and this is answered all the same.
    Done(Answer),
    /// The connection ends without an answer.
    Dropped {
        /// Whether it is done all the same.
        done: bool,
    },
    /// It is done, and the connection ends in the middle of the answer.
    CutShort,
    /// No answer comes until the fake is gone; it is not done.
    Silent,
    /// Somebody does something just before it is done.
    Before(Deed),
    /// Somebody does something after it is done, before the answer is out.
    After(Deed),
    /// The answer's body is changed on its way; it is no longer checked against the description.
    Changed(Box<dyn FnOnce(&mut Value) + Send>),
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Instead(_) => "Instead",
            Self::Done(_) => "Done",
            Self::Dropped { .. } => "Dropped",
            Self::CutShort => "CutShort",
            Self::Silent => "Silent",
            Self::Before(_) => "Before",
            Self::After(_) => "After",
            Self::Changed(_) => "Changed",
        })
    }
}

/// An answer that GitHub gives when something is wrong.
#[derive(Clone, Debug)]
pub struct Answer(pub(super) Reply);

impl Answer {
    /// This status with this message.
    #[must_use]
    pub fn of(status: u16, message: &str) -> Self {
        Self(Reply::json(status, &json!({ "message": message, "documentation_url": "https://docs.github.com/rest" })))
    }

    /// A header beside.
    #[must_use]
    pub fn with(self, name: &str, value: impl ToString) -> Self {
        Self(self.0.with(name, value))
    }

    /// 502, in GitHub's form: a page, no JSON.
    #[must_use]
    pub fn bad_gateway() -> Self {
        Self(Reply::new(502, "text/html", "<html><body><h1>502 Bad Gateway</h1></body></html>"))
    }

    /// A secondary limit, over after so many seconds.
    #[must_use]
    pub fn secondary_limit(after: u64) -> Self {
        Self::of(403, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.")
            .with("retry-after", after)
    }

    /// 405: it cannot be merged.
    #[must_use]
    pub fn not_mergeable() -> Self {
        Self::of(405, "Pull Request is not mergeable")
    }

    /// 409: the head is another one.
    #[must_use]
    pub fn head_moved() -> Self {
        Self::of(409, "Head branch was modified. Review and try the merge again.")
    }

    /// 409: said of a moment in which permissions are worked out; it passes.
    #[must_use]
    pub fn not_authorized_to_push() -> Self {
        Self::of(409, "You're not authorized to push to this branch. Visit the documentation for more information.")
    }

    /// 200 to a merge, as if it had been done.
    #[must_use]
    pub fn merged(commit: &str) -> Self {
        let body = json!({ "sha": commit, "merged": true, "message": "Pull Request successfully merged" });
        Self(Reply::json(200, &body))
    }

    /// 401.
    #[must_use]
    pub fn bad_credentials() -> Self {
        Self::of(401, "Bad credentials")
    }
}

/// Whether a text holds another one, and not as the beginning of a longer name or number.
fn holds(text: &str, about: &str) -> bool {
    let ends = |at: usize| !text[at + about.len()..].starts_with(|next: char| next.is_ascii_alphanumeric());
    about.is_empty() || text.match_indices(about).any(|(at, _)| ends(at))
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Script {
    waiting: Vec<(When, Fault)>,
}

impl Script {
    pub(super) fn play(&mut self, when: When, fault: Fault) {
        self.waiting.push((when, fault));
    }

    /// The faults for a request; each is played once. Of several for the same request all are.
    pub(super) fn take(&mut self, method: &str, template: &str, request: &Request) -> Vec<Fault> {
        let body = String::from_utf8_lossy(&request.body);
        let mut due = Vec::new();
        let mut waiting = Vec::new();
        for (mut when, fault) in std::mem::take(&mut self.waiting) {
            let fits = (when.method.is_empty() || when.method == method)
                && template.ends_with(&when.path)
                && (holds(&request.path, &when.about) || holds(&body, &when.about));
            if fits && when.skip == 0 {
                due.push(fault);
            } else {
                when.skip -= usize::from(fits);
                waiting.push((when, fault));
            }
        }
        self.waiting = waiting;
        due
    }

    /// What was never played.
    pub(super) fn left(&self) -> Vec<String> {
        self.waiting.iter().map(|(when, fault)| format!("{fault:?} at {when:?}")).collect()
    }
}
