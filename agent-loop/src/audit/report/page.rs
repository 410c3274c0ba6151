//! The page: what the log says in sentences, the picture, and tables of what the picture only marks.

mod evidence;
mod sections;

use sha2::{Digest as _, Sha256};

use super::draw::{self, outcome, u64_of};
use super::escape::Html;
use super::look::Look;
use super::model::{Report, Run, Verification};
use super::words::{command, count, duration, number, part, utc};
use evidence::evidence;
pub(super) use sections::loss;
use sections::{gaps, leftovers, refused, runs, stops};

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

fn run_link(page: &mut Html, report: &Report, place: usize) {
    if let Some(run) = report.runs.get(place) {
        page.raw("<a class=\"argv\" href=\"#run-").text(place).raw("\">");
        page.foreign(if run.argv.is_empty() { run.id.clone() } else { command(&run.argv) }).raw("</a>");
    }
}
