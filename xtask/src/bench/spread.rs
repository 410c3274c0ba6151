//! What several rounds of one figure have in common.

use serde_json::{Value, json};

/// The rounds of one figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    /// Of no rounds yet.
    pub(crate) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Each round changed alike.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|value| change(*value)).collect())
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Each round of this over the same round of the other.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }

    /// The middle one; NaN of no rounds.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match (sorted.get(middle), sorted.len() % 2) {
            (Some(upper), 0) => f64::midpoint(*upper, sorted.get(middle - 1).copied().unwrap_or(*upper)),
            (Some(exact), _) => *exact,
            (None, _) => f64::NAN,
        }
    }

    /// `median (min – max)`, with this many decimals.
    pub(crate) fn show(&self, decimals: usize) -> String {
        match (self.sorted().first(), self.sorted().last()) {
            (Some(min), Some(max)) => {
                format!("{:.decimals$} ({min:.decimals$} – {max:.decimals$})", self.median())
            }
            _ => "not measured".to_owned(),
        }
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        let sorted = self.sorted();
        json!({ "min": sorted.first(), "median": self.median(), "max": sorted.last(), "rounds": self.0 })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, median) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5), (vec![7.0], 7.0)] {
            assert!((Spread(values).median() - median).abs() < f64::EPSILON);
        }
        assert!(Spread::default().median().is_nan());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ratio = Spread(vec![2.0, 9.0]).over(&Spread(vec![1.0, 3.0]));
        assert_eq!(ratio.show(1), "2.5 (2.0 – 3.0)");
    }
}
