//! The page: what the log says in sentences, the picture, and tables of what the picture only marks.

use sha2::{Digest as _, Sha256};

use super::draw::{self, outcome, proofs, u64_of};
use super::escape::Html;
use super::look::Look;
use super::model::{Act, Gap, Report, Run, Sending, Verification};
use super::words::{command, count, duration, number, part, signal, size, status, utc};

const STYLE: &str = include_str!("style.css");

/// The report as one HTML file.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = Html::default();
    let hash = data_encoding::BASE64.encode(&Sha256::digest(STYLE.as_bytes()));
    // The policy allows this one style and nothing else: no script, no request, no form, no other base.
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-")
        .text(hash);
    page.raw("'; base-uri 'none'; form-action 'none'\">\n<meta name=\"referrer\" content=\"no-referrer\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<title>agent-loop: ");
    page.text(count(u64_of(report.runs.len()), "run", "runs"));
    if let Some((from, _)) = report.span {
        page.raw(", ").text(part(from, "%Y-%m-%d"));
    }
    page.raw("</title>\n<style>").raw(STYLE).raw("</style>\n</head>\n<body>\n");
    page.raw("<a class=\"skip\" href=\"#runs\">Skip the picture</a>\n<header>\n");
    head(&mut page, report);
    page.raw("</header>\n<main>\n<section id=\"timeline\"><h2>Timeline</h2>\n");
    draw::timeline(&mut page, report);
    page.raw("</section>\n");
    runs(&mut page, report);
    stops(&mut page, report);
    gaps(&mut page, report);
    refused(&mut page, report);
    leftovers(&mut page, report);
    evidence(&mut page, report);
    page.raw("</main>\n</body>\n</html>\n");
    page.into_string()
}

fn head(page: &mut Html, report: &Report) {
    page.raw("<h1>What the agents did</h1>\n<p class=\"lead\">");
    let Some((from, to)) = report.span else {
        page.raw("The lines that were read say nothing of any run.</p>\n");
        return;
    };
    page.text(count(u64_of(report.runs.len()), "run", "runs")).raw(" in ").text(duration(to - from)).raw(", ");
    page.raw("<span class=\"nobr\">").text(utc(from)).raw("</span> to <span class=\"nobr\">").text(utc(to));
    page.raw("</span>.</p>\n<ul class=\"tiles\">\n");
    for look in Look::ALL {
        let number = report.runs.iter().filter(|run| Look::of(&run.outcome) == look).count();
        if number > 0 {
            page.raw("<li><b class=\"")
                .raw(look.class())
                .raw("\">")
                .text(u64_of(number))
                .raw("</b><span class=\"fate ");
            page.raw(look.class()).raw("\"><b aria-hidden=\"true\">").raw(look.sign()).raw("</b> ").raw(look.word());
            page.raw("</span></li>\n");
        }
    }
    // The numbers are the log's: they may be any.
    let sum = |of: fn(&Run) -> u64| number(report.runs.iter().map(of).fold(0, u64::saturating_add));
    let left = sum(|run| run.leftovers.unwrap_or(u64_of(run.left.len())));
    let lost = report.gaps.iter().filter_map(|gap| gap.lost).flat_map(|lost| [lost.fork, lost.exec, lost.exit]);
    let lost = lost.fold(0, u64::saturating_add);
    let tiles = [
        (sum(|run| run.counted.fork), "births", ""),
        (sum(|run| run.counted.exit), "deaths", ""),
        (sum(|run| run.signals.sent), "signals sent", "#stops"),
        (sum(|run| run.signals.refused), "signals refused", "#refused"),
        (left, "leftovers", "#leftovers"),
        (number(u64_of(report.gaps.len())), "gaps", "#gaps"),
        (number(lost), "records declared lost", "#gaps"),
    ];
    for (number, what, to) in tiles {
        page.raw("<li><b>").text(number).raw("</b>");
        if to.is_empty() {
            page.raw("<span>").raw(what).raw("</span></li>\n");
        } else {
            page.raw("<a href=\"").raw(to).raw("\">").raw(what).raw("</a></li>\n");
        }
    }
    page.raw("</ul>\n");
    verdict(page, report.evidence.verification.as_ref());
    if report.evidence.unreadable_total > 0 {
        page.raw("<p class=\"notice bad\"><b>").text(count(report.evidence.unreadable_total, "line", "lines"));
        page.raw(
            " could not be read.</b> What they say is missing here; see <a href=\"#evidence\">Evidence</a>.</p>\n",
        );
    }
    for note in report.evidence.selection.iter().chain(&report.notes) {
        page.raw("<p class=\"notice\">").foreign(note).raw("</p>\n");
    }
}

/// Whether the log can be believed, in one line.
fn verdict(page: &mut Html, verification: Option<&Verification>) {
    match verification {
        None => {
            page.raw(
                "<p class=\"notice\"><b>Not verified.</b> This page shows what the lines say. No hash, signature or ",
            );
            page.raw("anchor was checked; <code>agent-loop audit verify</code> does that for a log.</p>\n");
        }
        Some(verification) => {
            page.raw("<p class=\"notice ").raw(if verification.passed { "good" } else { "bad" }).raw("\"><b>");
            page.raw(if verification.passed { "✓ Verified: " } else { "✕ Verification failed: " })
                .raw(verification.word);
            page.raw(".</b> ");
            if verification.passed {
                page.raw("See what that does not cover under <a href=\"#evidence\">Evidence</a>.</p>\n");
            } else {
                page.raw(
                    "What is shown here may not be what was written; see <a href=\"#evidence\">Evidence</a>.</p>\n",
                );
            }
        }
    }
}

fn verification(page: &mut Html, verification: Option<&Verification>) {
    let Some(verification) = verification else {
        page.raw(
            "<b>Not done.</b> Not checked: the hash of any line, the tree, signatures, keys and their epochs, anchors ",
        );
        page.raw("outside of the host.");
        return;
    };
    page.raw("<b class=\"").raw(if verification.passed { "succeeded" } else { "failed" }).raw("\">");
    page.raw(if verification.passed { "✓ " } else { "✕ " }).raw(verification.word).raw("</b>, as <code>audit verify");
    page.raw(" --account</code> ends with ").text(verification.code).raw(" when this page was made");
    let lists = [
        ("damage", &verification.damage),
        ("does not add up", &verification.sums),
        ("not checked", &verification.unchecked),
    ];
    page.raw("<ul>");
    for (name, list) in lists {
        for item in list {
            page.raw("<li>").raw(name).raw(": ").foreign(item).raw("</li>");
        }
    }
    let more = verification.damage_total.saturating_sub(verification.damage.len());
    if more > 0 {
        page.raw("<li>damage: ").text(number(u64_of(more))).raw(" more</li>");
    }
    page.raw("</ul>");
}

/// Begins a section with a table that may be wider than the screen.
fn table(page: &mut Html, name: &'static str, heads: &[&'static str]) {
    page.raw("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"").raw(name).raw("\"><table><thead><tr>");
    for head in heads {
        page.raw("<th scope=\"col\">").raw(head).raw("</th>");
    }
    page.raw("</tr></thead><tbody>\n");
}

fn end_table(page: &mut Html) {
    page.raw("</tbody></table></div>\n");
}

fn fate(page: &mut Html, run: &Run) {
    let look = Look::of(&run.outcome);
    page.raw("<span class=\"fate ").raw(look.class()).raw("\"><b aria-hidden=\"true\">").raw(look.sign()).raw("</b> ");
    outcome(page, run);
    page.raw("</span>");
}

fn known(page: &mut Html, text: Option<&str>) {
    match text {
        Some(text) => page.foreign(text),
        None => page.raw("<i>unknown</i>"),
    };
}

fn runs(page: &mut Html, report: &Report) {
    page.raw("<section id=\"runs\"><h2>Runs</h2>\n");
    let heads =
        ["Run", "Issue", "Born (UTC)", "Duration", "Outcome", "Status", "Births / deaths", "Signals", "Who and why"];
    table(page, "runs", &heads);
    for (place, run) in report.runs.iter().enumerate() {
        page.raw("<tr id=\"run-").text(place).raw("\"><td class=\"what\"><span class=\"argv\">");
        if run.argv.is_empty() {
            page.raw("<i>command unknown</i>");
        } else {
            page.foreign(command(&run.argv));
        }
        page.raw("</span><code class=\"id\">").foreign(&run.id).raw("</code></td><td>");
        match &run.issue {
            Some(issue) => page.foreign(issue),
            None => page.raw("<span class=\"dim\">none</span>"),
        };
        page.raw("</td><td class=\"num\">");
        match run.born {
            Some(born) => page.text(utc(born)),
            None => page.raw("<i>no birth in the log</i>"),
        };
        page.raw("</td><td class=\"num\">");
        if run.born.is_some() {
            page.raw(if run.ended.is_some() { "" } else { "at least " }).text(duration(run.to() - run.from()));
        }
        page.raw("</td><td>");
        fate(page, run);
        page.raw("</td><td>").text(status(run.exit.as_ref())).raw("</td><td class=\"num\">");
        page.text(number(run.counted.fork)).raw(" / ").text(number(run.counted.exit)).raw("</td><td class=\"num\">");
        if run.signals.intended + run.signals.refused == 0 {
            page.raw("<span class=\"dim\">none</span>");
        } else {
            page.raw("<a href=\"#stop-").text(place).raw("\">").text(number(run.signals.sent)).raw(" sent</a>");
            for (number_of, word) in [(run.signals.gone, " gone"), (run.signals.refused, " refused")] {
                if number_of > 0 {
                    page.raw(", ").text(number(number_of)).raw(word);
                }
            }
        }
        page.raw("</td><td class=\"why\">as ");
        known(page, run.user.as_deref());
        if let Some(reason) = run.killed.as_ref().and_then(|killed| killed.reason.as_ref()) {
            page.raw("; stopped: ").foreign(reason);
        }
        if let Some(tree) = &run.tree {
            page.raw("; tree: ").foreign(tree);
        }
        for said in &run.said {
            page.raw("; ").foreign(said);
        }
        page.raw("</td></tr>\n");
    }
    end_table(page);
    page.raw("</section>\n");
}

fn stops(page: &mut Html, report: &Report) {
    page.raw("<section id=\"stops\"><h2>Stops</h2>\n");
    let stopped = || report.runs.iter().enumerate().filter(|(_, run)| run.killed.is_some() || !run.acts.is_empty());
    let acts: usize = stopped().map(|(_, run)| run.acts.len()).sum();
    if stopped().next().is_none() {
        page.raw("<p class=\"none\">No signal and no stop stands in the lines that were read.</p>\n");
    }
    for (place, run) in stopped() {
        page.raw("<details").raw(if acts <= 40 { " open" } else { "" }).raw("><summary><b aria-hidden=\"true\">◆</b> ");
        if let Some(issue) = &run.issue {
            page.raw("issue ").foreign(issue).raw(", ");
        }
        page.raw("<span class=\"argv\">").foreign(command(&run.argv)).raw("</span>: ");
        match &run.killed {
            None => {
                page.raw("signalled; no end of a stop stands in the log");
            }
            Some(killed) => {
                page.raw("stopped for ");
                known(page, killed.reason.as_deref());
                page.raw(", tree ");
                known(page, killed.tree.as_deref());
                if let Some(survivors) = killed.survivors.filter(|survivors| *survivors > 0) {
                    page.raw(", ").text(count(survivors, "survivor", "survivors"));
                }
                if let Some(ms) = killed.elapsed_ms.and_then(|ms| i64::try_from(ms).ok()) {
                    page.raw(", ")
                        .text(duration(ms.saturating_mul(1_000_000)))
                        .raw(" from the first signal to the end");
                }
            }
        }
        page.raw("</summary>\n<div id=\"stop-")
            .text(place)
            .raw("\"><p>Evidence used: ")
            .text(proofs(run))
            .raw(".</p>\n");
        table(page, "signals of a run", &["Time (UTC)", "Line", "Signal", "To", "Proof", "Reason", "Result"]);
        for act in run.acts.iter().take(Run::ACTS) {
            page.raw("<tr><td class=\"num\">").text(utc(act.at)).raw("</td><td class=\"num\">").text(number(act.seq));
            page.raw("</td><td>");
            signal_of(page, act);
            page.raw("</td><td>");
            target(page, act);
            page.raw("</td><td>");
            known(page, act.proof.as_deref());
            page.raw("</td><td>");
            known(page, act.reason.as_deref());
            page.raw("</td><td>");
            result(page, act.result.as_ref());
            page.raw("</td></tr>\n");
        }
        end_table(page);
        let listed = u64_of(run.acts.len().min(Run::ACTS));
        let all = run.signals.intended.max(listed);
        if all > listed {
            page.raw("<p class=\"dim\">The first ")
                .text(number(listed))
                .raw(" of ")
                .text(number(all))
                .raw(" signals.</p>\n");
        }
        page.raw("</div></details>\n");
    }
    page.raw("</section>\n");
}

fn signal_of(page: &mut Html, act: &Act) {
    match act.signal {
        Some(number) => page.text(signal(number)),
        None => page.raw("<i>unknown</i>"),
    };
}

fn target(page: &mut Html, act: &Act) {
    match (act.pid, act.cgroup) {
        (_, Some(cgroup)) => page.raw("all in the run's cgroup ").text(cgroup),
        (Some(pid), None) => page.raw("process ").text(pid),
        (None, None) => page.raw("<i>unknown</i>"),
    };
    if let Some(id) = &act.to {
        page.raw(" <code class=\"id\">").foreign(id).raw("</code>");
    }
}

fn result(page: &mut Html, result: Option<&Sending>) {
    match result {
        None => page.raw("<i>unknown: no result in the log</i>"),
        Some(Sending::Sent) => page.raw("sent"),
        Some(Sending::Gone) => page.raw("its target was gone"),
        Some(Sending::Refused(why)) => {
            page.raw("<b class=\"failed\">refused</b>: ");
            known(page, why.as_deref());
            page
        }
        Some(Sending::Other(word)) => page.foreign(word),
    };
}

/// What a gap says is lost, in words.
pub(super) fn loss(gap: &Gap) -> String {
    let mut parts = Vec::new();
    if let Some(lost) = gap.lost {
        for (n, one, many) in [
            (lost.fork, "birth", "births"),
            (lost.exec, "exec", "execs"),
            (lost.exit, "death", "deaths"),
            (gap.untracked, "process never tracked", "processes never tracked"),
            (gap.missed, "skipped run of a hook", "skipped runs of a hook"),
        ] {
            if n > 0 {
                parts.push(count(n, one, many));
            }
        }
    }
    parts.extend(gap.lines.map(|lines| count(lines, "line of the log", "lines of the log")));
    parts.extend(gap.bytes.map(|bytes| format!("{} bytes of a torn line", number(bytes))));
    if parts.is_empty() { "how much was lost is unknown".to_owned() } else { parts.join(", ") }
}

fn run_link(page: &mut Html, report: &Report, place: usize) {
    if let Some(run) = report.runs.get(place) {
        page.raw("<a class=\"argv\" href=\"#run-").text(place).raw("\">");
        page.foreign(if run.argv.is_empty() { run.id.clone() } else { command(&run.argv) }).raw("</a>");
    }
}

fn gaps(page: &mut Html, report: &Report) {
    page.raw("<section id=\"gaps\"><h2>Gaps</h2>\n");
    if report.gaps.is_empty() {
        page.raw("<p class=\"none\">The lines that were read declare no loss.</p>\n");
    } else {
        table(
            page,
            "gaps",
            &["Line", "From (UTC)", "To (UTC)", "Cause", "Lost", "Inferred by the repair", "Repaired", "Run"],
        );
        for gap in &report.gaps {
            page.raw("<tr id=\"gap-").text(gap.seq).raw("\"><td class=\"num\">").text(number(gap.seq));
            page.raw("</td><td class=\"num\">").text(utc(gap.from)).raw("</td><td class=\"num\">").text(utc(gap.to));
            page.raw("</td><td>").foreign(&gap.cause).raw("</td><td>").text(loss(gap)).raw("</td><td>");
            page.text(count(gap.inferred.fork, "birth", "births")).raw(", ");
            page.text(count(gap.inferred.exit, "death", "deaths")).raw("</td><td>");
            page.raw(match gap.repaired {
                Some(true) => "yes",
                Some(false) => "<b class=\"failed\">no</b>",
                None => "<i>unknown</i>",
            });
            page.raw("</td><td>");
            match gap.run {
                Some(run) => run_link(page, report, run),
                None => {
                    page.raw("the whole log");
                }
            }
            page.raw("</td></tr>\n");
        }
        end_table(page);
    }
    page.raw("</section>\n");
}

fn refused(page: &mut Html, report: &Report) {
    page.raw("<section id=\"refused\"><h2>Refused signals</h2>\n");
    let all = || {
        let acts = |(place, run): (usize, &'_ Run)| (place, run.acts.len());
        report.runs.iter().enumerate().map(acts).flat_map(|(place, acts)| (0..acts).map(move |act| (place, act)))
    };
    let refusal = |(place, act): (usize, usize)| {
        let act = report.runs.get(place)?.acts.get(act)?;
        matches!(act.result, Some(Sending::Refused(_))).then_some((place, act))
    };
    let listed: Vec<(usize, &Act)> = all().filter_map(refusal).collect();
    let number_of: u64 = report.runs.iter().map(|run| run.signals.refused).sum();
    if listed.is_empty() {
        page.raw("<p class=\"none\">No refusal stands in the lines that were read.</p>\n");
    } else {
        page.raw("<p>Nobody was signalled here: the proof that the target is the run's own could not be had.</p>\n");
        table(page, "refused signals", &["Time (UTC)", "Line", "Signal", "To", "Why", "Run"]);
        for (place, act) in &listed {
            page.raw("<tr><td class=\"num\">").text(utc(act.at)).raw("</td><td class=\"num\">").text(number(act.seq));
            page.raw("</td><td>");
            signal_of(page, act);
            page.raw("</td><td>");
            target(page, act);
            page.raw("</td><td>");
            if let Some(Sending::Refused(why)) = &act.result {
                known(page, why.as_deref());
            }
            page.raw("</td><td>");
            run_link(page, report, *place);
            page.raw("</td></tr>\n");
        }
        end_table(page);
        if number_of > u64_of(listed.len()) {
            page.raw("<p class=\"dim\">").text(number(u64_of(listed.len()))).raw(" of ").text(number(number_of));
            page.raw(" are listed.</p>\n");
        }
    }
    page.raw("</section>\n");
}

fn leftovers(page: &mut Html, report: &Report) {
    page.raw("<section id=\"leftovers\"><h2>Leftovers</h2>\n");
    let with = || report.runs.iter().enumerate().filter(|(_, run)| !run.left.is_empty() || run.leftovers > Some(0));
    if with().next().is_none() {
        page.raw("<p class=\"none\">No process outlived its run's main process, by the lines that were read.</p>\n");
    } else {
        page.raw("<p>Processes that were alive when their run's main process died.</p>\n");
        table(page, "leftovers", &["Process", "Command", "What became of it", "Run"]);
        for (place, run) in with() {
            for left in &run.left {
                page.raw("<tr><td>")
                    .text(left.pid)
                    .raw(" <code class=\"id\">")
                    .foreign(&left.id)
                    .raw("</code></td><td>");
                if left.argv.is_empty() {
                    page.raw("<i>no exec of its own in the log</i>");
                } else {
                    page.raw("<span class=\"argv\">").foreign(command(&left.argv)).raw("</span>");
                }
                page.raw("</td><td>");
                match &left.death {
                    None => page.raw("<b class=\"failed\">no death in the log</b>"),
                    Some((at, exit)) => {
                        page.text(status(exit.as_ref()));
                        if let Some(cause) = exit.as_ref().and_then(|exit| exit.cause.as_ref()) {
                            page.raw(" (").foreign(cause).raw(")");
                        }
                        page.raw(", <span class=\"num\">").text(utc(*at)).raw("</span>")
                    }
                };
                page.raw("</td><td>");
                run_link(page, report, place);
                page.raw("</td></tr>\n");
            }
            let (said, listed) = (run.leftovers.unwrap_or(0), u64_of(run.left.len()));
            if said != listed && run.leftovers.is_some() {
                page.raw("<tr><td colspan=\"3\" class=\"dim\">The run's end names ").text(number(said));
                page.raw("; ").text(number(listed)).raw(" are listed from births and deaths.</td><td>");
                run_link(page, report, place);
                page.raw("</td></tr>\n");
            }
        }
        end_table(page);
    }
    page.raw("</section>\n");
}

fn evidence(page: &mut Html, report: &Report) {
    let evidence = &report.evidence;
    page.raw("<section id=\"evidence\"><h2>Evidence</h2>\n<dl>\n<dt>Log</dt><dd>");
    match &evidence.log {
        Some(log) => page.raw("<code>").foreign(log).raw("</code>"),
        None => page.raw("<i>without an id: lines of events, not a signed log</i>"),
    };
    if let Some(format) = &evidence.format {
        page.raw(", format ").foreign(format);
    }
    page.raw("</dd>\n<dt>Lines</dt><dd>").text(number(evidence.lines));
    if let Some((first, last)) = evidence.seqs {
        page.raw(", numbered ").text(number(first)).raw(" to ").text(number(last));
    }
    page.raw("</dd>\n<dt>Checkpoint</dt><dd>");
    match &evidence.checkpoint {
        None => page.raw("<i>none was found beside the lines: nothing here is signed</i>"),
        Some(checkpoint) => {
            page.raw("claims ");
            match checkpoint.size {
                Some(size) => page.text(count(size, "line", "lines")),
                None => page.raw("<i>an unknown number of lines</i>"),
            };
            page.raw(", root <code class=\"id\">").foreign(&checkpoint.root).raw("</code>, signed ");
            known(page, checkpoint.time.as_deref());
            page.raw(", by ").foreign(&checkpoint.origin);
            let after = evidence.lines.saturating_sub(checkpoint.size.unwrap_or(0));
            if evidence.log.is_some() && after > 0 {
                page.raw("; ").text(count(after, "line", "lines")).raw(" after it");
            }
            &mut *page
        }
    };
    page.raw("</dd>\n<dt>Keys in the log</dt><dd>");
    if evidence.keys.is_empty() {
        page.raw("<i>none</i>");
    } else {
        page.foreign(evidence.keys.join(", "));
    }
    page.raw("</dd>\n<dt>Verification</dt><dd>");
    verification(page, evidence.verification.as_ref());
    page.raw("</dd>\n");
    page.raw("<dt>Schemas</dt><dd>");
    known(page, Some(evidence.schemas.join(", ")).filter(|it| !it.is_empty()).as_deref());
    page.raw("</dd>\n<dt>Redaction</dt><dd>");
    if evidence.redaction.is_empty() {
        page.raw("<i>no policy is named in the lines that were read</i>");
    } else {
        page.raw("policy <code class=\"id\">").foreign(evidence.redaction.join(", ")).raw("</code>");
    }
    page.raw("</dd>\n");
    for host in &evidence.hosts {
        page.raw("<dt>Written by</dt><dd>agent-loop ").foreign(&host.version).raw(", kernel ").foreign(&host.kernel);
        page.raw(", watched by ").foreign(&host.backend);
        for missing in &host.degraded {
            page.raw("; <b class=\"failed\">without</b> ").foreign(missing);
        }
        page.raw("</dd>\n");
    }
    for boot in &report.boots {
        page.raw("<dt>Boot</dt><dd><code class=\"id\">")
            .foreign(&boot.id)
            .raw("</code>, first line ")
            .text(utc(boot.from));
        page.raw("</dd>\n");
    }
    if !evidence.not_shown.is_empty() {
        let kinds: Vec<String> =
            evidence.not_shown.iter().map(|(kind, n)| format!("{} × {kind}", number(*n))).collect();
        page.raw("<dt>Lines not shown above</dt><dd>").foreign(kinds.join(", ")).raw("</dd>\n");
    }
    page.raw("</dl>\n");
    files(page, report);
    sums(page, report);
    page.raw("</section>\n");
}

fn files(page: &mut Html, report: &Report) {
    let evidence = &report.evidence;
    page.raw("<h3>Files</h3>\n");
    table(page, "files", &["File", "Size on disk", "Lines"]);
    for file in &evidence.files {
        page.raw("<tr><td><code>").foreign(&file.name).raw("</code></td><td class=\"num\">").text(size(file.bytes));
        page.raw("</td><td class=\"num\">").text(number(file.lines)).raw("</td></tr>\n");
    }
    end_table(page);
    if evidence.unreadable_total > 0 {
        page.raw("<h3>Lines that could not be read</h3>\n");
        table(page, "lines that could not be read", &["File", "Line in it", "Why"]);
        for (file, line, why) in &evidence.unreadable {
            page.raw("<tr><td><code>");
            known(page, evidence.files.get(*file).map(|file| file.name.as_str()));
            page.raw("</code></td><td class=\"num\">")
                .text(number(*line))
                .raw("</td><td>")
                .foreign(why)
                .raw("</td></tr>\n");
        }
        end_table(page);
    }
}

/// Whether what the kernel counted is what the log accounts for, run by run.
fn sums(page: &mut Html, report: &Report) {
    page.raw("<h3>The kernel's sum</h3>\n");
    let with: Vec<(usize, &Run)> = report.runs.iter().enumerate().filter(|(_, run)| run.stats.is_some()).collect();
    if with.is_empty() {
        page.raw("<p class=\"none\">No run of the lines that were read has a sum.</p>\n");
        return;
    }
    page.raw("<p>Seen by the kernel's hooks = written + filtered + late + declared lost; births, execs, deaths. ");
    page.raw("The sum is the log's own claim; its lines were counted while this page was made.</p>\n");
    let heads = ["Run", "Seen", "Written", "Filtered", "Late", "Lost", "Lines counted", "Adds up"];
    table(page, "sums", &heads);
    for (place, run) in with {
        let Some(stats) = &run.stats else { continue };
        page.raw("<tr><td>");
        run_link(page, report, place);
        page.raw("</td>");
        for counts in [&stats.seen, &stats.written, &stats.filtered, &stats.late, &stats.lost, &run.counted] {
            page.raw("<td class=\"num\">").text(number(counts.fork)).raw(" ").text(number(counts.exec)).raw(" ");
            page.text(number(counts.exit)).raw("</td>");
        }
        page.raw("<td>").raw(if adds_up(run) { "✓ yes" } else { "<b class=\"failed\">✕ no</b>" }).raw("</td></tr>\n");
    }
    end_table(page);
}

fn adds_up(run: &Run) -> bool {
    let Some(stats) = &run.stats else { return false };
    let sum = |of: fn(&super::model::Counts) -> u64| {
        let parts = [&stats.written, &stats.filtered, &stats.late, &stats.lost];
        u128::from(of(&stats.seen)) == parts.into_iter().map(|part| u128::from(of(part))).sum()
    };
    sum(|counts| counts.fork) && sum(|counts| counts.exec) && sum(|counts| counts.exit)
}
