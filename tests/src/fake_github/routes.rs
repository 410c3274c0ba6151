//! What GitHub does at each request.

use serde_json::{Value, json};

use super::answers;
use super::description::Operation;
use super::world::{Made, Origin, World};
use crate::http::Reply;

/// What a request wants, decoded.
pub(super) struct Asked<'r> {
    pub(super) operation: &'r Operation,
    pub(super) query: &'r [(String, String)],
    pub(super) body: Value,
    /// Where the API is, for links.
    pub(super) url: String,
}

impl Asked<'_> {
    fn part(&self, name: &str) -> &str {
        self.operation.parts.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.part(name).parse().unwrap_or(0)
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    fn field(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

fn not_found() -> Reply {
    error(404, "Not Found")
}

pub(super) fn error(status: u16, message: &str) -> Reply {
    let body = json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.to_string() });
    Reply::json(status, &body)
}

fn invalid(message: &str) -> Reply {
    let body = json!({ "message": message, "documentation_url": "https://docs.github.com/rest" });
    Reply::json(422, &body)
}

/// One page of a list, with the links to others; `wrap` puts it where the answer has it.
fn page(asked: &Asked<'_>, all: Vec<Value>, wrap: impl FnOnce(usize, Vec<Value>) -> Value) -> Reply {
    let number = |name, default| asked.query(name).and_then(|it| it.parse::<usize>().ok()).unwrap_or(default).max(1);
    let (size, at) = (number("per_page", 30).min(100), number("page", 1));
    let total = all.len();
    let last = total.div_ceil(size).max(1);
    let slice: Vec<Value> = all.into_iter().skip((at - 1) * size).take(size).collect();
    let reply = Reply::json(200, &wrap(total, slice));
    let others: Vec<(String, String)> = asked.query.iter().filter(|(name, _)| name != "page").cloned().collect();
    let link = |page: usize, rel: &str| {
        let query: Vec<String> = others.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        format!("<{}?{}&page={page}>; rel=\"{rel}\"", asked.url, query.join("&"))
    };
    let mut links = Vec::new();
    if at > 1 {
        links.push(link(at - 1, "prev"));
    }
    if at < last {
        links.extend([link(at + 1, "next"), link(last, "last")]);
    }
    if links.is_empty() { reply } else { reply.with("link", links.join(", ")) }
}

fn escape(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    let byte = |c: char| c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    value.chars().map(|c| if plain(c) { c.to_string() } else { byte(c) }).collect()
}

fn list(asked: &Asked<'_>, all: Vec<Value>) -> Reply {
    page(asked, all, |_, slice| slice.into())
}

impl World {
    /// Answers a request. Who asks may do it all.
    pub(super) fn answer(&mut self, asked: &Asked<'_>) -> Reply {
        self.see_pushes();
        let operation = asked.operation;
        if operation.template.starts_with("/repos/{owner}/{repo}") {
            let same = |name, own: &str| asked.part(name).eq_ignore_ascii_case(own);
            if !same("owner", &self.owner) || !same("repo", &self.name) {
                return not_found();
            }
        }
        let template = operation.template.trim_start_matches("/repos/{owner}/{repo}");
        match (operation.method.as_str(), template) {
            ("get", "/user") => self.who(),
            ("get", "/app") => Reply::json(200, &answers::app()),
            ("post", "/app/installations/{installation_id}/access_tokens") => self.mint(),
            ("get", "") => Reply::json(200, &self.repository_body()),
            ("get", "/issues") => self.list_issues(asked),
            ("get", "/labels") => list(asked, self.labels.iter().map(|name| answers::label(name)).collect()),
            (method, template) if template.starts_with("/issues/") => self.of_issue(method, template, asked),
            (method, template) if template.starts_with("/git/") => self.of_git(method, template, asked),
            (method, template) if template.starts_with("/pulls") => self.of_pull(method, template, asked),
            ("get", template) => self.of_commit(template, asked),
            _ => error(501, "the fake does not do this"),
        }
    }

    fn who(&self) -> Reply {
        let reply = Reply::json(200, &self.user_body());
        match &self.scopes {
            Some(scopes) => reply.with("x-oauth-scopes", scopes),
            None => reply,
        }
    }

    fn mint(&mut self) -> Reply {
        self.minted += 1;
        let token = format!("ghs_minted{}", self.minted);
        self.tokens.insert(token.clone());
        Reply::json(201, &answers::installation_token(&token, self.now() + 3_600))
    }

    pub(super) fn now(&self) -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0)) + self.clock_ahead
    }

    fn list_issues(&self, asked: &Asked<'_>) -> Reply {
        let labels: Vec<&str> = asked.query("labels").map(|it| it.split(',').collect()).unwrap_or_default();
        let open = asked.query("state").is_none_or(|state| state == "open");
        let wanted = self.issues.iter().filter(|(_, issue)| {
            (!open || issue.open) && labels.iter().all(|label| issue.labels.iter().any(|it| it == label))
        });
        let all = wanted.map(|(number, issue)| self.issue_body(*number, issue)).collect();
        list(asked, all)
    }

    fn of_issue(&mut self, method: &str, template: &str, asked: &Asked<'_>) -> Reply {
        if let Some(rest) = template.strip_prefix("/issues/comments/") {
            let id = asked.number("comment_id");
            if rest != "{comment_id}" || !self.comments.contains_key(&id) {
                return not_found();
            }
            if method == "delete" {
                self.comments.remove(&id);
                return Reply::new(204, "text/plain", "");
            }
            if let Some(comment) = self.comments.get_mut(&id) {
                asked.field("body").clone_into(&mut comment.body);
            }
            return Reply::json(200, &self.comment_body(id));
        }
        let number = asked.number("issue_number");
        let Some(issue) = self.issues.get(&number).cloned() else { return not_found() };
        let login = self.login.clone();
        match (method, template.trim_start_matches("/issues/{issue_number}")) {
            ("get", "") => Reply::json(200, &self.issue_body(number, &issue)),
            ("patch", "") => {
                if asked.field("state") == "closed" {
                    self.close(number);
                }
                let issue = self.issues.get(&number).cloned().unwrap_or(issue);
                Reply::json(200, &self.issue_body(number, &issue))
            }
            ("get", "/comments") => {
                let ids: Vec<u64> =
                    self.comments.iter().filter(|(_, comment)| comment.issue == number).map(|(id, _)| *id).collect();
                let shown: Vec<u64> = ids.into_iter().filter(|id| !self.is_unshown(Made::Comment, *id)).collect();
                list(asked, shown.into_iter().map(|id| self.comment_body(id)).collect())
            }
            ("post", "/comments") => {
                let id = self.comment(number, &login, asked.field("body"));
                self.made(Made::Comment, id);
                Reply::json(201, &self.comment_body(id))
            }
            ("get", "/events") => list(asked, self.events_of(number)),
            ("post", "/labels") => {
                for name in asked.body["labels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    self.label(number, name, &login);
                }
                self.labels_of(number)
            }
            ("delete", "/labels/{name}") => match self.unlabel(number, asked.part("name"), &login) {
                true => self.labels_of(number),
                false => error(404, "Label does not exist"),
            },
            _ => error(501, "the fake does not do this"),
        }
    }

    fn labels_of(&self, number: u64) -> Reply {
        let labels = self.issues.get(&number).map(|issue| issue.labels.clone()).unwrap_or_default();
        Reply::json(200, &labels.iter().map(|name| answers::label(name)).collect::<Vec<_>>().into())
    }

    fn of_git(&mut self, method: &str, template: &str, asked: &Asked<'_>) -> Reply {
        let name = format!("refs/{}", asked.part("ref"));
        match (method, template.trim_start_matches("/git")) {
            ("get", "/ref/{ref}") => match self.git.at(&name) {
                Some(at) => Reply::json(200, &self.ref_body(&name, &at)),
                None => not_found(),
            },
            ("get", "/matching-refs/{ref}") => {
                let all = self.git.below(&name);
                list(asked, all.iter().map(|(name, at)| self.ref_body(name, at)).collect())
            }
            ("post", "/refs") => {
                let (name, at) = (asked.field("ref"), asked.field("sha"));
                if !name.starts_with("refs/") || name.matches('/').count() < 2 {
                    return invalid("Reference name must start with 'refs' and have at least two slashes.");
                }
                if !self.git.has(at) {
                    return invalid("Object does not exist");
                }
                match self.git.update(name, at, None) {
                    true => Reply::json(201, &self.ref_body(name, at)),
                    false => invalid("Reference already exists"),
                }
            }
            ("patch", "/refs/{ref}") => {
                let to = asked.field("sha");
                let Some(old) = self.git.at(&name) else { return invalid("Reference does not exist") };
                if !self.git.has(to) {
                    return invalid("Object does not exist");
                }
                if asked.body["force"] != true && !self.git.is_ancestor(&old, to) {
                    return invalid("Update is not a fast forward");
                }
                match self.git.update(&name, to, Some(&old)) {
                    true => Reply::json(200, &self.ref_body(&name, to)),
                    false => error(409, "Reference cannot be updated"),
                }
            }
            ("delete", "/refs/{ref}") => match self.git.delete(&name) {
                true => Reply::new(204, "text/plain", ""),
                false => invalid("Reference does not exist"),
            },
            ("get", "/commits/{commit_sha}") => match self.commit_body(asked.part("commit_sha")) {
                Some(body) => Reply::json(200, &body),
                None => not_found(),
            },
            ("post", "/commits") => {
                let parents = asked.body["parents"].as_array().cloned().unwrap_or_default();
                let parents: Vec<&str> = parents.iter().filter_map(Value::as_str).collect();
                let made = self.git.commit_tree(asked.field("tree"), &parents, asked.field("message"));
                match made.and_then(|made| self.commit_body(&made)) {
                    Some(body) => Reply::json(201, &body),
                    None => invalid("Tree SHA does not exist"),
                }
            }
            _ => error(501, "the fake does not do this"),
        }
    }

    fn of_pull(&mut self, method: &str, template: &str, asked: &Asked<'_>) -> Reply {
        let number = asked.number("pull_number");
        match (method, template) {
            ("get", "/pulls") => {
                let head = asked.query("head").and_then(|head| head.split_once(':'));
                let fits = |number: &u64, pull: &super::world::Pull| {
                    let open = self.issues.get(number).is_some_and(|issue| issue.open);
                    let state = match asked.query("state") {
                        Some("all") => true,
                        Some("closed") => !open,
                        _ => open,
                    };
                    // As GitHub does it: by the owner of the head's repository, not by the repository.
                    let of = |(owner, branch)| pull.head_owner(&self.owner) == owner && pull.head_branch == branch;
                    state && head.is_none_or(of)
                };
                let wanted = self.pulls.iter().rev().filter(|(number, pull)| fits(number, pull));
                let numbers: Vec<u64> = wanted.map(|(number, _)| *number).collect();
                let shown: Vec<u64> = numbers.into_iter().filter(|it| !self.is_unshown(Made::Pull, *it)).collect();
                list(asked, shown.into_iter().map(|number| self.pull_summary(number, &self.pulls[&number])).collect())
            }
            ("post", "/pulls") => {
                let (head, base) = (asked.field("head"), asked.field("base"));
                let open = |number: &u64| self.issues.get(number).is_some_and(|issue| issue.open);
                let same = self
                    .pulls
                    .iter()
                    .filter(|(_, pull)| pull.from == Origin::Here)
                    .any(|(number, pull)| open(number) && pull.head_branch == head && pull.base == base);
                if same {
                    let message = format!("A pull request already exists for {}:{head}.", self.owner);
                    return Reply::json(
                        422,
                        &json!({ "message": "Validation Failed",
                        "documentation_url": "https://docs.github.com/rest",
                        "errors": [{ "resource": "PullRequest", "code": "custom", "message": message }] }),
                    );
                }
                if self.git.at(&format!("refs/heads/{head}")).is_none() {
                    return Reply::json(
                        422,
                        &json!({ "message": "Validation Failed",
                        "documentation_url": "https://docs.github.com/rest",
                        "errors": [{ "resource": "PullRequest", "field": "head", "code": "invalid" }] }),
                    );
                }
                let login = self.login.clone();
                let number = self.open_pull(head, base, asked.field("title"), asked.field("body"), &login);
                self.made(Made::Pull, number);
                Reply::json(201, &self.pull_body(number))
            }
            ("get", "/pulls/{pull_number}") if self.pulls.contains_key(&number) => {
                Reply::json(200, &self.pull_body(number))
            }
            ("put", "/pulls/{pull_number}/merge") => self.merge_asked(number, asked),
            _ => not_found(),
        }
    }

    fn merge_asked(&mut self, number: u64, asked: &Asked<'_>) -> Reply {
        let Some(pull) = self.pulls.get(&number).cloned() else { return not_found() };
        let open = self.issues.get(&number).is_some_and(|issue| issue.open);
        let sha = asked.body["sha"].as_str();
        if !open || pull.draft || !self.can_merge(&pull) {
            return error(405, "Pull Request is not mergeable");
        }
        if sha.is_some_and(|sha| sha != pull.head) {
            return error(409, "Head branch was modified. Review and try the merge again.");
        }
        if self.merge_queue || !self.is_green(&pull.head) || self.up_to_date && self.is_behind(&pull) {
            return error(405, "Repository rule violations found");
        }
        let squash = asked.field("merge_method") != "merge";
        let login = self.login.clone();
        match self.merge(number, squash, &login) {
            Some(commit) => {
                self.made(Made::Merge, number);
                let message = "Pull Request successfully merged";
                Reply::json(200, &json!({ "sha": commit, "merged": true, "message": message }))
            }
            None => error(405, "Pull Request is not mergeable"),
        }
    }

    fn of_commit(&mut self, template: &str, asked: &Asked<'_>) -> Reply {
        let part = |name| asked.part(name).to_owned();
        match template {
            "/commits/{ref}/check-runs" if self.hides_checks => {
                error(403, "Resource not accessible by personal access token")
            }
            "/commits/{ref}/check-runs" => {
                let all = self.check_bodies(&part("ref"));
                page(asked, all, |total, slice| json!({ "total_count": total, "check_runs": slice }))
            }
            "/commits/{ref}/status" => {
                let (all, commit) = (self.status_bodies(&part("ref")), part("ref"));
                let whole = super::description::get().example("combined-commit-status");
                page(asked, all, |total, slice| {
                    let mut body = whole;
                    body["statuses"] = slice.into();
                    body["total_count"] = json!(total);
                    body["sha"] = json!(commit);
                    body
                })
            }
            "/actions/runs" => {
                let all = self.run_bodies(asked.query("head_sha").unwrap_or_default());
                page(asked, all, |total, slice| json!({ "total_count": total, "workflow_runs": slice }))
            }
            "/actions/runs/{run_id}/jobs" => {
                let all = self.job_bodies(&part("run_id"));
                page(asked, all, |total, slice| json!({ "total_count": total, "jobs": slice }))
            }
            "/actions/jobs/{job_id}/logs" => {
                let job = asked.number("job_id");
                let site = asked.url.split("/api/v3").next().unwrap_or_default();
                match self.logs.contains_key(&job) {
                    true => {
                        Reply::new(302, "text/plain", "").with("location", format!("{site}/store/{job}?signature=x"))
                    }
                    false => not_found(),
                }
            }
            "/rules/branches/{branch}" => list(asked, self.rule_bodies()),
            "/branches/{branch}" => match self.git.at(&format!("refs/heads/{}", part("branch"))) {
                Some(at) => Reply::json(200, &self.branch_body(&part("branch"), &at)),
                None => not_found(),
            },
            "/compare/{basehead}" => {
                let both = part("basehead");
                let (base, head) = both.split_once("...").unwrap_or((&both, ""));
                let at = |name: &str| self.git.at(&format!("refs/heads/{name}")).or_else(|| self.git.at(name));
                match (at(base), at(head).filter(|head| self.git.has(head))) {
                    (Some(base), Some(head)) => Reply::json(200, &self.compared_body(&base, &head)),
                    _ => not_found(),
                }
            }
            "/contents/{path}" => match self.git.file(asked.query("ref").unwrap_or("main"), &part("path")) {
                Some(text) => Reply::new(200, "application/vnd.github.raw+json", text),
                None => not_found(),
            },
            _ => error(501, "the fake does not do this"),
        }
    }
}
