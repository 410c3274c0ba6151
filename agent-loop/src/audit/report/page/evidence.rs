//! What the page rests on: the log, its signatures, the lines that could not be read, the kernel's sums.

use super::super::draw::u64_of;
use super::super::escape::Html;
use super::super::model::{Counts, Report, Run, Verification};
use super::super::words::{count, number, size, utc};
use super::{end_table, known, run_link, table};

pub(super) fn evidence(page: &mut Html, report: &Report) {
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
    let sum = |of: fn(&Counts) -> u64| {
        let parts = [&stats.written, &stats.filtered, &stats.late, &stats.lost];
        u128::from(of(&stats.seen)) == parts.into_iter().map(|part| u128::from(of(part))).sum()
    };
    sum(|counts| counts.fork) && sum(|counts| counts.exec) && sum(|counts| counts.exit)
}
