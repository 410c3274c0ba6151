//! Where a moment stands on the picture: scale, ticks of the axis, densities, rows.

use super::model::Moment;
use super::words;

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;
const MIN: i64 = 60 * S;
const H: i64 = 60 * MIN;
const DAY: i64 = 24 * H;

/// Steps of an axis that a person counts in.
const STEPS: [i64; 37] = [
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    S,
    2 * S,
    5 * S,
    10 * S,
    15 * S,
    30 * S,
    MIN,
    2 * MIN,
    5 * MIN,
    10 * MIN,
    15 * MIN,
    30 * MIN,
    H,
    2 * H,
    3 * H,
    6 * H,
    12 * H,
    DAY,
    2 * DAY,
    5 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    56 * DAY,
    112 * DAY,
    365 * DAY,
    730 * DAY,
    3_650 * DAY,
];

/// Room on both sides, so that nothing sticks to the edge.
const PAD: f64 = 0.012;

/// How many columns a density has: about one pixel each on a screen of 1,280.
pub(super) const COLUMNS: usize = 1_000;

/// The span that is shown, laid on 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    from: Moment,
    to: Moment,
}

/// A mark of the axis.
#[derive(Debug, PartialEq)]
pub(super) struct Tick {
    pub at: f64,
    pub label: String,
    /// How many of the others must be there for this one to be shown: 0 on every screen, 1 and 2 on wider ones.
    pub rank: u8,
}

impl Scale {
    /// A scale over a span of at least one millisecond.
    pub(super) fn new((from, to): (Moment, Moment)) -> Self {
        Self { from, to: to.max(from + MS) }
    }

    /// The place of a moment; what is outside is at the edge.
    pub(super) fn place(self, at: Moment) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a place on a screen")]
        let share = (at - self.from) as f64 / (self.to - self.from) as f64;
        PAD + share.clamp(0.0, 1.0) * (1.0 - 2.0 * PAD)
    }

    /// A stretch as its place and its width, wide enough to be seen.
    pub(super) fn stretch(self, from: Moment, to: Moment, least: f64) -> (f64, f64) {
        let (begin, end) = (self.place(from), self.place(to));
        let width = (end - begin).max(least);
        (begin.min(1.0 - width), width)
    }

    /// Whether a moment is within.
    pub(super) fn holds(self, at: Moment) -> bool {
        (self.from..=self.to).contains(&at)
    }

    /// Whether a part of a stretch is within.
    pub(super) fn touches(self, from: Moment, to: Moment) -> bool {
        to >= self.from && from <= self.to
    }

    /// The marks of the axis, at most ten or so.
    pub(super) fn ticks(self) -> Vec<Tick> {
        let span = self.to - self.from;
        let step = STEPS.into_iter().find(|step| span / step <= 9).unwrap_or(3_650 * DAY);
        let first = self.from.div_euclid(step) + i64::from(self.from.rem_euclid(step) > 0);
        let numbers = (first..).map(|number| (number, number * step)).take_while(|(_, at)| *at <= self.to);
        let label = |at: Moment| match step {
            DAY.. => words::part(at, "%b %d"),
            _ if step >= MIN && at.rem_euclid(DAY) == 0 => words::part(at, "%b %d"),
            MIN.. => words::part(at, "%H:%M"),
            S.. => words::part(at, "%H:%M:%S"),
            _ => words::part(at, "%H:%M:%S.%3f"),
        };
        let rank = |number: i64| u8::from(number % 2 != 0) + u8::from(number % 4 != 0);
        numbers.map(|(number, at)| Tick { at: self.place(at), label: label(at), rank: rank(number) }).collect()
    }

    /// How many of `moments`, which are in order, fall into each column; columns without any are left out.
    pub(super) fn density(self, moments: &[Moment]) -> Vec<(usize, u64)> {
        let mut columns: Vec<(usize, u64)> = Vec::new();
        for at in moments.iter().filter(|at| self.holds(**at)) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place is within 0 and 1")]
            #[expect(clippy::cast_precision_loss, reason = "a thousand columns")]
            let column = (self.place(*at) * COLUMNS as f64) as usize;
            match columns.last_mut() {
                Some((last, count)) if *last == column => *count += 1,
                Some(_) | None => columns.push((column, 1)),
            }
        }
        columns
    }
}

/// Puts stretches into as few rows as their order allows, so that none lies on another; `gap` is kept between two.
pub(super) fn pack(stretches: &[(f64, f64)], gap: f64) -> Vec<Vec<usize>> {
    let mut rows: Vec<(f64, Vec<usize>)> = Vec::new();
    for (number, (begin, width)) in stretches.iter().enumerate() {
        match rows.iter_mut().find(|(end, _)| *begin >= *end + gap) {
            Some((end, row)) => {
                *end = begin + width;
                row.push(number);
            }
            None => rows.push((begin + width, vec![number])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_a_few_marks_at_round_times_whatever_the_span() {
        for span in [MS, 3 * MS, 700 * MS, 4 * S, 90 * S, 40 * MIN, 8 * H, 3 * DAY, 400 * DAY] {
            let from = 1_764_072_900_123_456_789;
            let ticks = Scale::new((from, from + span)).ticks();
            assert!(ticks.len() <= 10, "{span}: {ticks:?}");
            assert!(span < 2 * MS || ticks.len() >= 2, "{span}: {ticks:?}");
            assert!(
                ticks.windows(2).all(|pair| pair[0].at < pair[1].at && pair[0].label != pair[1].label),
                "{ticks:?}"
            );
        }
    }

    #[test]
    fn midnight_is_told_by_its_date() {
        let from = 1_764_108_000 * S; // 2025-11-25 22:00
        let labels: Vec<String> = Scale::new((from, from + 4 * H)).ticks().into_iter().map(|it| it.label).collect();
        assert_eq!(labels, ["22:00", "22:30", "23:00", "23:30", "Nov 26", "00:30", "01:00", "01:30", "02:00"]);
    }

    #[test]
    fn a_density_counts_every_moment_and_has_no_more_columns_than_pixels() {
        let moments: Vec<Moment> = (0..100_000).map(|number| number * MS).collect();
        let density = Scale::new((0, 100_000 * MS)).density(&moments);
        assert!(density.len() <= COLUMNS);
        assert_eq!(density.iter().map(|(_, count)| count).sum::<u64>(), 100_000);
    }

    #[test]
    fn what_is_outside_of_the_span_is_at_its_edge_and_in_no_column() {
        let scale = Scale::new((1_000 * MS, 2_000 * MS));
        assert_eq!(scale.place(0).to_bits(), scale.place(1_000 * MS).to_bits());
        assert_eq!(scale.density(&[0, 3_000 * MS]), []);
    }

    #[test]
    fn a_stretch_is_seen_however_short_it_is_and_stays_inside() {
        let scale = Scale::new((0, DAY));
        let (begin, width) = scale.stretch(DAY, DAY, 0.1);
        assert!(width >= 0.1 && begin + width <= 1.0);
    }

    #[test]
    fn packed_rows_hold_each_once_and_none_on_another() {
        let stretches = [(0.0, 0.5), (0.1, 0.1), (0.3, 0.1), (0.6, 0.2)];
        assert_eq!(pack(&stretches, 0.01), [vec![0, 3], vec![1, 2]]);
    }
}
