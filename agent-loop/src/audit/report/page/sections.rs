//! Tables of what the picture only marks: runs, stops, gaps, refused signals, leftovers.

use super::super::draw::{proofs, u64_of};
use super::super::escape::Html;
use super::super::model::{Act, Gap, Report, Run, Sending};
use super::super::words::{command, count, duration, number, signal, status, utc};
use super::{end_table, fate, known, run_link, table};

pub(super) fn runs(page: &mut Html, report: &Report) {
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

pub(super) fn stops(page: &mut Html, report: &Report) {
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
            sent(page, act);
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

/// Begins the row of a signal: when, where it stands, what was to be sent, to whom.
fn sent(page: &mut Html, act: &Act) {
    page.raw("<tr><td class=\"num\">").text(utc(act.at)).raw("</td><td class=\"num\">").text(number(act.seq));
    page.raw("</td><td>");
    signal_of(page, act);
    page.raw("</td><td>");
    target(page, act);
    page.raw("</td><td>");
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
pub(in crate::audit::report) fn loss(gap: &Gap) -> String {
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

pub(super) fn gaps(page: &mut Html, report: &Report) {
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

pub(super) fn refused(page: &mut Html, report: &Report) {
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
            sent(page, act);
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

pub(super) fn leftovers(page: &mut Html, report: &Report) {
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
