//! The bodies of answers: GitHub's own examples, with what the fake remembers in them.

use serde_json::{Value, json};

use super::description;
use super::world::{Issue, Made, Origin, Pull, World};

/// Seconds since 1970, as GitHub writes them.
pub(super) fn time(seconds: i64) -> String {
    // The civil date of a day number, by the calendar that repeats every 400 years.
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The same, as HTTP writes it.
pub(super) fn http_date(seconds: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let iso = time(seconds);
    let number = |at: std::ops::Range<usize>| iso.get(at).and_then(|it| it.parse::<usize>().ok()).unwrap_or(1);
    let weekday = usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    format!(
        "{}, {:02} {} {:04} {} GMT",
        DAYS[weekday],
        number(8..10),
        MONTHS[number(5..7) - 1],
        number(0..4),
        iso.get(11..19).unwrap_or_default()
    )
}

/// An example as an object into which fields are put.
fn with(mut example: Value, fields: Value) -> Value {
    if let (Some(example), Value::Object(fields)) = (example.as_object_mut(), fields) {
        example.extend(fields);
    }
    example
}

fn example(name: &str) -> Value {
    description::get().example(name)
}

pub(super) fn user(login: &str) -> Value {
    let mut user = example("issue")["user"].clone();
    user["login"] = json!(login);
    user
}

fn maybe_user(login: Option<&str>) -> Value {
    login.map_or(Value::Null, user)
}

pub(super) fn label(name: &str) -> Value {
    with(example("label-items")[0].clone(), json!({ "name": name }))
}

/// When things are said to have happened: the number makes them differ, and nothing depends on the host's clock.
fn when(number: u64) -> String {
    time(1_700_000_000 + i64::try_from(number).unwrap_or(0))
}

impl World {
    fn html(&self, rest: &str) -> String {
        format!("https://github.test/{}/{}/{rest}", self.owner, self.name)
    }

    pub(super) fn issue_body(&self, number: u64, issue: &Issue) -> Value {
        let labels: Vec<Value> = issue.labels.iter().map(|name| label(name)).collect();
        let mut body = with(
            example("issue"),
            json!({
                "id": number, "number": number, "title": issue.title, "body": issue.body,
                "state": if issue.open { "open" } else { "closed" },
                "state_reason": if issue.open { Value::Null } else { json!("completed") },
                "user": maybe_user(issue.author.as_deref()), "labels": labels,
                "created_at": when(number), "updated_at": when(number),
                "closed_at": if issue.open { Value::Null } else { json!(when(number)) },
                "html_url": self.html(&format!("issues/{number}")),
                "comments": self.comments.values().filter(|comment| comment.issue == number).count(),
            }),
        );
        if !self.pulls.contains_key(&number)
            && let Some(body) = body.as_object_mut()
        {
            body.remove("pull_request");
        }
        body
    }

    pub(super) fn comment_body(&self, id: u64) -> Value {
        let Some(comment) = self.comments.get(&id) else { return Value::Null };
        with(
            example("issue-comment"),
            json!({ "id": id, "body": comment.body, "user": user(&comment.author),
                    "created_at": when(id), "updated_at": when(id) }),
        )
    }

    pub(super) fn events_of(&self, number: u64) -> Vec<Value> {
        let events = self.issues.get(&number).map(|issue| issue.events.clone()).unwrap_or_default();
        let each = events.into_iter().zip(0_u64..).map(|((added, name, by), at)| {
            with(
                example("issue-event-for-issue-items")[0].clone(),
                json!({ "id": number * 1_000 + at, "event": if added { "labeled" } else { "unlabeled" },
                        "actor": user(&by), "label": { "name": name, "color": "ededed" },
                        "commit_id": null, "commit_url": null, "created_at": when(number + at) }),
            )
        });
        each.collect()
    }

    pub(super) fn ref_body(&self, name: &str, at: &str) -> Value {
        let url = format!("https://api.github.test/repos/{}/{}/git/commits/{at}", self.owner, self.name);
        with(example("git-ref"), json!({ "ref": name, "object": { "type": "commit", "sha": at, "url": url } }))
    }

    pub(super) fn commit_body(&self, commit: &str) -> Option<Value> {
        let raw = self.git.try_run(&["cat-file", "commit", commit], b"")?;
        let (head, message) = raw.split_once("\n\n").unwrap_or((&raw, ""));
        let field = |name: &str| head.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
        let url = |kind: &str, id: &str| format!("https://api.github.test/{kind}/{id}");
        let parents: Vec<Value> = field("parent ")
            .into_iter()
            .map(|id| json!({ "sha": id, "url": url("commits", id), "html_url": url("commits", id) }))
            .collect();
        let tree = field("tree ").first().copied().unwrap_or_default().to_owned();
        // By the clock of GitHub, which makes commits that are asked for over the API.
        let made = field("committer ").first().and_then(|line| line.rsplit(' ').nth(1)?.parse::<i64>().ok());
        let made = time(made.unwrap_or(0) + self.clock_ahead);
        let by = json!({ "name": "A Person", "email": "person@example.com", "date": made });
        Some(with(
            example("git-commit"),
            json!({ "sha": commit, "message": message, "parents": parents, "author": by, "committer": by,
                    "tree": { "sha": tree, "url": url("trees", &tree) } }),
        ))
    }

    /// A pull request, as a list tells it.
    pub(super) fn pull_summary(&self, number: u64, pull: &Pull) -> Value {
        self.pull_fields(number, pull, example("pull-request-simple-items")[0].clone())
    }

    fn pull_fields(&self, number: u64, pull: &Pull, mut body: Value) -> Value {
        let Some(issue) = self.issues.get(&number) else { return Value::Null };
        let full_name = format!("{}/{}", self.owner, self.name);
        for (end, branch, at) in [("head", &pull.head_branch, &pull.head), ("base", &pull.base, &pull.head)] {
            body[end]["ref"] = json!(branch);
            body[end]["sha"] = json!(at);
            body[end]["label"] = json!(format!("{}:{branch}", self.owner));
            body[end]["repo"]["full_name"] = json!(full_name);
            body[end]["repo"]["name"] = json!(self.name);
        }
        body["head"]["label"] = json!(format!("{}:{}", pull.head_owner(&self.owner), pull.head_branch));
        match &pull.from {
            Origin::Here => {}
            Origin::Fork(fork) => body["head"]["repo"]["full_name"] = json!(fork),
            Origin::Gone(_) => body["head"]["repo"] = Value::Null,
        }
        if let Some(base) = self.git.at(&format!("refs/heads/{}", pull.base)) {
            body["base"]["sha"] = json!(base);
        }
        with(
            body,
            json!({
                "number": number, "title": issue.title, "body": issue.body,
                "state": if issue.open { "open" } else { "closed" },
                "draft": pull.draft, "user": maybe_user(issue.author.as_deref()),
                "created_at": when(number), "updated_at": when(number),
                "merged_at": pull.merged.as_ref().map(|_| when(number)),
                "merge_commit_sha": pull.merged.as_ref().map(|(commit, _)| commit),
                "html_url": self.html(&format!("pull/{number}")), "auto_merge": null, "requested_teams": [],
            }),
        )
    }

    /// A pull request alone. GitHub works out whether it can be merged when it is read.
    pub(super) fn pull_body(&mut self, number: u64) -> Value {
        let Some(pull) = self.pulls.get_mut(&number) else { return Value::Null };
        pull.reads += 1;
        let pull = pull.clone();
        let known = pull.reads > self.mergeable_after;
        let can = self.can_merge(&pull);
        let state = match () {
            () if !known || pull.merged.is_some() => "unknown",
            () if !can => "dirty",
            () if pull.draft => "draft",
            () if self.up_to_date && self.is_behind(&pull) => "behind",
            () if !self.is_green(&pull.head) => "blocked",
            () => "clean",
        };
        let body = self.pull_fields(number, &pull, example("pull-request"));
        let shown = with(
            body,
            json!({
                "merged": pull.merged.is_some(),
                "merged_by": pull.merged.as_ref().map(|(_, by)| user(by)),
                "mergeable": (known && pull.merged.is_none()).then_some(can),
                "mergeable_state": state,
            }),
        );
        if !self.is_unshown(Made::Merge, number) {
            return shown;
        }
        // As it was before.
        let before = json!({
            "state": "open", "merged": false, "merged_by": null, "merged_at": null, "merge_commit_sha": null,
            "mergeable": true, "mergeable_state": "clean",
        });
        with(shown, before)
    }

    /// Check runs of a commit: what was set, or what continuous integration says now.
    pub(super) fn check_bodies(&mut self, commit: &str) -> Vec<Value> {
        self.reads_of_ci += 1;
        let turn = self.reads_of_ci;
        let said =
            || self.ci.says(turn).map(|(status, end)| ("test".to_owned(), status.to_owned(), end.map(str::to_owned)));
        let checks = self.checks.get(commit).cloned().unwrap_or_else(|| said().into_iter().collect());
        let each = checks.into_iter().zip(1_u64..).map(|((name, status, conclusion), at)| {
            let over = status == "completed";
            with(
                example("check-run-paginated")["check_runs"][0].clone(),
                json!({ "id": turn * 100 + at, "name": name, "head_sha": commit, "status": status,
                        "conclusion": conclusion, "started_at": when(at), "pull_requests": [],
                        "completed_at": over.then(|| when(at)) }),
            )
        });
        each.collect()
    }

    pub(super) fn status_bodies(&self, commit: &str) -> Vec<Value> {
        let all = self.statuses.get(commit).cloned().unwrap_or_default();
        let each = all.into_iter().zip(1_u64..).map(|((context, state), id)| {
            with(
                example("combined-commit-status")["statuses"][0].clone(),
                json!({ "id": id, "context": context, "state": state, "updated_at": when(id) }),
            )
        });
        each.collect()
    }

    pub(super) fn run_bodies(&self, commit: &str) -> Vec<Value> {
        let known = self.pulls.values().any(|pull| pull.head == commit) || self.git.has(commit);
        let Some((status, conclusion)) = self.ci.says(self.reads_of_ci).filter(|_| known) else { return Vec::new() };
        let run = with(
            example("workflow-run-paginated")["workflow_runs"][0].clone(),
            json!({ "id": 77, "head_sha": commit, "status": status, "conclusion": conclusion,
                    "event": "pull_request", "pull_requests": [], "created_at": when(1) }),
        );
        vec![run]
    }

    pub(super) fn job_bodies(&self, run: &str) -> Vec<Value> {
        let Some((status, conclusion)) = self.ci.says(self.reads_of_ci) else { return Vec::new() };
        let job = with(
            example("job-paginated")["jobs"][0].clone(),
            json!({ "id": 88, "run_id": run.parse::<u64>().unwrap_or(0), "name": "test", "status": status,
                    "conclusion": conclusion, "created_at": when(1) }),
        );
        vec![job]
    }

    pub(super) fn rule_bodies(&self) -> Vec<Value> {
        let of = |kind: &str, parameters: Value| {
            json!({ "type": kind, "parameters": parameters, "ruleset_source_type": "Repository",
                    "ruleset_source": format!("{}/{}", self.owner, self.name), "ruleset_id": 1 })
        };
        let mut rules = vec![json!({ "type": "deletion", "ruleset_source_type": "Repository", "ruleset_id": 1,
                                     "ruleset_source": format!("{}/{}", self.owner, self.name) })];
        if !self.required.is_empty() || self.up_to_date {
            let checks: Vec<Value> = self.required.iter().map(|name| json!({ "context": name })).collect();
            let parameters = json!({ "required_status_checks": checks,
                                     "strict_required_status_checks_policy": self.up_to_date });
            rules.push(of("required_status_checks", parameters));
        }
        if self.merge_queue {
            let parameters = json!({ "check_response_timeout_minutes": 60, "grouping_strategy": "ALLGREEN",
                "max_entries_to_build": 5, "max_entries_to_merge": 5, "merge_method": "SQUASH",
                "min_entries_to_merge": 1, "min_entries_to_merge_wait_minutes": 5 });
            rules.push(of("merge_queue", parameters));
        }
        rules
    }

    pub(super) fn branch_body(&self, name: &str, at: &str) -> Value {
        let on = !self.protected.is_empty();
        let checks: Vec<Value> = self.protected.iter().map(|name| json!({ "context": name, "app_id": null })).collect();
        let mut body = with(example("branch-get"), json!({ "name": name, "protected": on }));
        body["commit"]["sha"] = json!(at);
        body["protection"] = json!({ "enabled": on, "required_status_checks": {
            "enforcement_level": if on { "non_admins" } else { "off" }, "contexts": self.protected, "checks": checks } });
        body
    }

    pub(super) fn repository_body(&self) -> Value {
        let mut whole = example("full-repository-default-response");
        // The example is a fork of a fork, whose own form is older than its description.
        if let Some(whole) = whole.as_object_mut() {
            whole.retain(|name, _| !matches!(name.as_str(), "source" | "parent" | "template_repository"));
        }
        with(
            whole,
            json!({ "name": self.name, "full_name": format!("{}/{}", self.owner, self.name), "language": null,
                    "default_branch": "main", "archived": false, "fork": false,
                    "permissions": { "admin": false, "push": true, "pull": true } }),
        )
    }

    pub(super) fn user_body(&self) -> Value {
        let whole = example("private-user-response-with-public-and-private-profile-information");
        with(whole, json!({ "login": self.login, "user_view_type": "private" }))
    }

    pub(super) fn compared_body(&self, base: &str, head: &str) -> Value {
        let status = match (self.git.is_ancestor(head, base), self.git.is_ancestor(base, head)) {
            (true, true) => "identical",
            (true, false) => "behind",
            (false, true) => "ahead",
            (false, false) => "diverged",
        };
        with(example("commit-comparison"), json!({ "status": status }))
    }
}

pub(super) fn installation_token(token: &str, expires: i64) -> Value {
    with(example("installation-token"), json!({ "token": token, "expires_at": time(expires) }))
}

pub(super) fn app() -> Value {
    with(example("integration"), json!({ "id": 42, "slug": "agent-loop" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_github_writes_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(http_date(1_700_000_000), "Tue, 14 Nov 2023 22:13:20 GMT");
    }
}
