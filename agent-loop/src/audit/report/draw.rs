//! Draws the timeline: a lane per issue, a bar per run, ticks, marks and gaps.
//!
//! Places are percentages of the width and sizes are pixels, so that the picture fits every screen and its letters stay
//! as large as those of the page.

use super::escape::Html;
use super::look::Look;
use super::model::{Gap, Report, Run, Sending};
use super::scale::{self, COLUMNS, Scale};
use super::words::{command, count, duration, number, status, utc};

/// From how many runs on the bars of a lane share rows and have no labels of their own.
const MANY: usize = 150;
/// A bar is at least this wide, as a share of the picture.
const LEAST: f64 = 0.003;

/// Draws the timeline of a report.
pub(super) fn timeline(page: &mut Html, report: &Report) {
    let Some(span) = report.span.filter(|_| !report.runs.is_empty()) else {
        page.raw("<p class=\"none\">No run stands in the lines that were read.</p>\n");
        return;
    };
    let scale = Scale::new(span);
    patterns(page);
    legend(page, report);
    page.raw("<div class=\"timeline\">\n");
    axis(page, scale, span, true);
    page.raw("<div class=\"lanes\">\n");
    grid(page, report, scale);
    let many = report.runs.len() > MANY;
    for lane in &report.lanes {
        page.raw("<section class=\"lane\"><h3>");
        match &lane.issue {
            Some(issue) => page.raw("Issue ").foreign(issue),
            None => page.raw("Without an issue"),
        };
        page.raw(" <small>").text(count(u64_of(lane.runs.len()), "run", "runs")).raw("</small></h3>\n");
        let rows = if many {
            let bars: Vec<(f64, f64)> =
                lane.runs.iter().filter_map(|run| report.runs.get(*run)).map(|run| bar(run, scale)).collect();
            scale::pack(&bars, 0.002)
        } else {
            (0..lane.runs.len()).map(|place| vec![place]).collect()
        };
        for row in rows {
            let runs: Vec<usize> = row.into_iter().filter_map(|place| lane.runs.get(place).copied()).collect();
            page.raw("<div class=\"row\">");
            match runs.as_slice() {
                [run] if !many => label(page, report, *run),
                several => {
                    page.raw("<div class=\"label\"><span class=\"dim\">");
                    page.text(count(u64_of(several.len()), "run", "runs")).raw("</span></div>");
                }
            }
            page.raw("<svg class=\"plot\" height=\"34\" role=\"group\">");
            for run in runs {
                draw_run(page, report, run, scale);
            }
            page.raw("</svg></div>\n");
        }
        page.raw("</section>\n");
    }
    page.raw("</div>\n");
    axis(page, scale, span, false);
    page.raw("</div>\n");
}

fn bar(run: &Run, scale: Scale) -> (f64, f64) {
    scale.stretch(run.from(), run.to(), LEAST)
}

fn label(page: &mut Html, report: &Report, place: usize) {
    let Some(run) = report.runs.get(place) else { return };
    let look = Look::of(&run.outcome);
    page.raw("<div class=\"label\"><a class=\"name\" href=\"#run-").text(place).raw("\">");
    name(page, run);
    page.raw("</a><span class=\"fate ")
        .raw(look.class())
        .raw("\"><b aria-hidden=\"true\">")
        .raw(look.sign())
        .raw("</b> ");
    fate(page, run);
    page.raw("</span></div>");
}

/// The command of a run, or its id where no command is known.
fn name(page: &mut Html, run: &Run) {
    if run.argv.is_empty() {
        page.foreign(&run.id);
    } else {
        page.foreign(command(&run.argv));
    }
}

/// What became of a run, and how long it took.
fn fate(page: &mut Html, run: &Run) {
    outcome(page, run);
    if run.born.is_some() {
        page.raw(" · ").text(duration(run.to() - run.from()));
    }
}

/// The outcome in words.
pub(super) fn outcome(page: &mut Html, run: &Run) {
    use super::model::Outcome;
    match &run.outcome {
        Outcome::Stopped(reason) => {
            page.raw("stopped: ").foreign(reason);
        }
        Outcome::Failed => {
            page.raw("failed, ").text(status(run.exit.as_ref()));
        }
        Outcome::Succeeded
        | Outcome::LaunchFailed
        | Outcome::NotEmpty
        | Outcome::Unknown
        | Outcome::Lost
        | Outcome::Open => {
            page.raw(Look::of(&run.outcome).word());
        }
    }
}

fn draw_run(page: &mut Html, report: &Report, place: usize, scale: Scale) {
    let Some(run) = report.runs.get(place) else { return };
    let look = Look::of(&run.outcome);
    if let (Some(intended), Some(born)) = (run.intended, run.born)
        && born > intended
    {
        page.raw("<line class=\"waiting\" x1=\"").percent(scale.place(intended)).raw("\" x2=\"");
        page.percent(scale.place(born)).raw("\" y1=\"17\" y2=\"17\"/>");
    }
    let (x, width) = bar(run, scale);
    page.raw("<a href=\"#run-").text(place).raw("\" class=\"run\" data-run=\"").text(place).raw("\"><title>");
    title(page, run);
    page.raw("</title>");
    for class in ["bar", "mark"] {
        page.raw("<rect class=\"").raw(class).raw(" ").raw(look.class()).raw("\" x=\"").percent(x).raw("\" width=\"");
        page.percent(width).raw("\" y=\"11\" height=\"12\" rx=\"2\"/>");
        if matches!(look, Look::Succeeded) {
            break;
        }
    }
    page.raw("</a>");
    ticks(page, scale, run);
    for gap in report.gaps.iter().filter(|gap| gap.run == Some(place)) {
        draw_gap(page, gap, scale, "34");
    }
    stop(page, run, place, scale);
}

fn title(page: &mut Html, run: &Run) {
    page.raw(Look::of(&run.outcome).word()).raw(", ").text(status(run.exit.as_ref()));
    page.raw("\n").text(utc(run.from())).raw(" to ");
    match run.ended {
        Some(ended) => page.text(utc(ended)),
        None => page.raw("unknown: no end in the log"),
    };
    page.raw(", ").text(duration(run.to() - run.from())).raw("\n");
    page.text(count(run.counted.fork, "birth", "births")).raw(", ");
    page.text(count(run.counted.exit, "death", "deaths")).raw("\n").text(command(&run.argv));
}

/// Births above the bar and deaths below it, as high as there are many in one column.
fn ticks(page: &mut Html, scale: Scale, run: &Run) {
    for (class, y, moments) in [("births", "1", &run.births), ("deaths", "24", &run.deaths)] {
        let columns = scale.density(moments);
        if columns.is_empty() {
            continue;
        }
        page.raw("<svg x=\"0\" y=\"").raw(y).raw("\" width=\"100%\" height=\"9\" viewBox=\"0 0 ").text(COLUMNS);
        page.raw(" 9\" preserveAspectRatio=\"none\"><path class=\"").raw(class).raw("\" d=\"");
        for (column, count) in columns {
            // One is 4 pixels high, and every doubling adds one.
            let height = (4 + count.ilog2()).min(9);
            page.raw("M").text(column).raw(if class == "births" { " 9v-" } else { " 0v" }).text(height);
        }
        page.raw("\"/></svg>");
    }
}

fn stop(page: &mut Html, run: &Run, place: usize, scale: Scale) {
    let first = run.acts.iter().map(|act| act.at).min();
    let reason = run.killed.as_ref().and_then(|killed| killed.reason.as_ref());
    let reason = reason.or_else(|| run.acts.iter().find_map(|act| act.reason.as_ref()));
    let at = run.killed.as_ref().map(|killed| killed.at).or(first);
    if let Some(at) = at.filter(|at| scale.holds(*at)) {
        page.raw("<a href=\"#stop-").text(place).raw("\" class=\"kill\"><title>");
        page.raw(if run.killed.is_some() { "stopped" } else { "signalled; no end of a stop in the log" });
        page.raw(" at ").text(utc(at)).raw("\nreason: ");
        match reason {
            Some(reason) => page.text(reason),
            None => page.raw("unknown"),
        };
        if let Some(killed) = &run.killed {
            page.raw("\ntree: ").text(killed.tree.as_deref().unwrap_or("unknown"));
        }
        page.raw("\nevidence: ").text(proofs(run)).raw("</title><svg x=\"").percent(scale.place(at));
        page.raw("\" y=\"17\" class=\"at\"><path class=\"diamond");
        page.raw(if run.killed.is_some() { "" } else { " hollow" }).raw("\" d=\"M0-8 8 0 0 8-8 0Z\"/></svg></a>");
    }
    let refused = run.acts.iter().filter(|act| matches!(act.result, Some(Sending::Refused(_))));
    let mut last = f64::NEG_INFINITY;
    // Below the bar: a refusal and the kill after it are often one moment on the picture of a night.
    for act in refused.filter(|act| scale.holds(act.at)) {
        let x = scale.place(act.at);
        if x - last < 0.004 {
            continue;
        }
        last = x;
        page.raw("<a href=\"#refused\" class=\"refusal\"><title>a signal was refused at ").text(utc(act.at));
        page.raw("</title><svg x=\"")
            .percent(x)
            .raw("\" y=\"28\" class=\"at\"><circle r=\"5\"/><path d=\"M-3 3 3-3\"/></svg></a>");
    }
}

/// The proofs by which a run's signals were sent, with how many by each.
pub(super) fn proofs(run: &Run) -> String {
    let mut proofs: Vec<(&str, u64)> = Vec::new();
    for act in &run.acts {
        let proof = act.proof.as_deref().unwrap_or("none");
        match proofs.iter_mut().find(|(known, _)| *known == proof) {
            Some((_, count)) => *count += 1,
            None => proofs.push((proof, 1)),
        }
    }
    let words: Vec<String> = proofs.iter().map(|(proof, count)| format!("{} × {proof}", number(*count))).collect();
    if words.is_empty() { "no signal stands in the log".to_owned() } else { words.join(", ") }
}

fn draw_gap(page: &mut Html, gap: &Gap, scale: Scale, height: &'static str) {
    if !scale.touches(gap.from, gap.to) {
        return;
    }
    let (x, width) = scale.stretch(gap.from, gap.to, 0.004);
    page.raw("<a href=\"#gap-").text(gap.seq).raw("\" class=\"gap\"><title>records were lost here: ").text(&gap.cause);
    page.raw("\n").text(super::page::loss(gap)).raw("\n").text(utc(gap.from)).raw(" to ").text(utc(gap.to));
    page.raw("</title><rect class=\"veil\" x=\"")
        .percent(x)
        .raw("\" width=\"")
        .percent(width)
        .raw("\" y=\"0\" height=\"");
    page.raw(height).raw("\"/><rect class=\"hatch\" x=\"").percent(x).raw("\" width=\"").percent(width);
    page.raw("\" y=\"0\" height=\"").raw(height).raw("\"/></a>");
}

/// What lies behind or over all rows: the lines of the axis, other boots, and gaps of the whole log.
fn grid(page: &mut Html, report: &Report, scale: Scale) {
    page.raw("<svg class=\"grid\" aria-hidden=\"true\">");
    for tick in scale.ticks() {
        page.raw("<line x1=\"").percent(tick.at).raw("\" x2=\"").percent(tick.at).raw("\" y1=\"0\" y2=\"100%\"/>");
    }
    for boot in report.boots.iter().skip(1).filter(|boot| scale.holds(boot.from)) {
        let x = scale.place(boot.from);
        page.raw("<line class=\"boot\" x1=\"").percent(x).raw("\" x2=\"").percent(x).raw("\" y1=\"0\" y2=\"100%\"/>");
    }
    page.raw("</svg>\n");
    let of_all = || report.gaps.iter().filter(|gap| gap.run.is_none());
    if of_all().next().is_some() {
        page.raw("<svg class=\"grid over\">");
        for gap in of_all() {
            draw_gap(page, gap, scale, "100%");
        }
        page.raw("</svg>\n");
    }
}

fn axis(page: &mut Html, scale: Scale, (from, _): (i64, i64), top: bool) {
    page.raw("<div class=\"row axis ").raw(if top { "top" } else { "bottom" }).raw("\"><div class=\"label\">");
    if top {
        page.text(super::words::part(from, "%Y-%m-%d")).raw(", UTC");
    }
    page.raw("</div><svg class=\"plot\" height=\"22\" aria-hidden=\"true\">");
    for tick in scale.ticks() {
        let rank = match tick.rank {
            0 => "r0",
            1 => "r1",
            _ => "r2",
        };
        let anchor = if tick.at < 0.04 {
            "start"
        } else if tick.at > 0.96 {
            "end"
        } else {
            "middle"
        };
        page.raw("<text class=\"").raw(rank).raw("\" text-anchor=\"").raw(anchor).raw("\" x=\"").percent(tick.at);
        page.raw("\" y=\"15\">").text(tick.label).raw("</text>");
    }
    page.raw("</svg></div>\n");
}

/// The patterns that tell outcomes apart without colour.
fn patterns(page: &mut Html) {
    page.raw(
        "<svg class=\"defs\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>\
         <pattern id=\"p-dots\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <circle cx=\"1.5\" cy=\"1.5\" r=\"1.2\"/><circle cx=\"4.5\" cy=\"4.5\" r=\"1.2\"/></pattern>\
         <pattern id=\"p-stripes\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <rect x=\"0\" y=\"0\" width=\"2\" height=\"6\"/></pattern>\
         <pattern id=\"p-cross\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
         <path d=\"M0 0 6 6M6 0 0 6\"/></pattern>\
         <pattern id=\"p-hatch\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\">\
         <path d=\"M-2 2 2-2M0 7 7 0M5 9 9 5\"/></pattern></defs></svg>\n",
    );
}

fn legend(page: &mut Html, report: &Report) {
    page.raw("<ul class=\"legend\" aria-label=\"legend\">");
    for look in Look::ALL {
        if !report.runs.iter().any(|run| Look::of(&run.outcome) == look) {
            continue;
        }
        page.raw("<li><svg width=\"26\" height=\"14\" aria-hidden=\"true\">");
        for class in ["bar", "mark"] {
            page.raw("<rect class=\"").raw(class).raw(" ").raw(look.class());
            page.raw("\" x=\"1\" y=\"1\" width=\"24\" height=\"12\" rx=\"2\"/>");
            if matches!(look, Look::Succeeded) {
                break;
            }
        }
        page.raw("</svg> ").raw(look.sign()).raw(" ").raw(look.word()).raw("</li>");
    }
    page.raw(
        "<li><svg width=\"26\" height=\"14\" aria-hidden=\"true\"><path class=\"births\" d=\"M5 13v-4M10 13v-6M15 13v-9M20 13v-4\"/>\
         </svg> births</li><li><svg width=\"26\" height=\"14\" aria-hidden=\"true\">\
         <path class=\"deaths\" d=\"M5 1v4M10 1v6M15 1v9M20 1v4\"/></svg> deaths, higher where there are more</li>",
    );
    if report.runs.iter().any(|run| run.killed.is_some() || !run.acts.is_empty()) {
        page.raw(
            "<li><svg width=\"18\" height=\"16\" viewBox=\"-9 -8 18 16\" aria-hidden=\"true\"><path class=\"diamond\" \
             d=\"M0-7 7 0 0 7-7 0Z\"/></svg> stop</li>",
        );
    }
    if report.runs.iter().any(|run| run.signals.refused > 0) {
        page.raw(
            "<li class=\"refusal\"><svg width=\"18\" height=\"16\" viewBox=\"-9 -8 18 16\" aria-hidden=\"true\">\
             <circle r=\"6\"/><path d=\"M-4 4 4-4\"/></svg> signal refused</li>",
        );
    }
    if !report.gaps.is_empty() {
        page.raw(
            "<li><svg width=\"26\" height=\"14\" aria-hidden=\"true\"><rect class=\"hatch\" width=\"26\" height=\"14\"/>\
             </svg> records lost</li>",
        );
    }
    page.raw("</ul>\n");
}

pub(super) fn u64_of(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
