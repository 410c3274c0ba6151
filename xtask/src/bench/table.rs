//! What a person reads.

use std::fmt;

use serde_json::Value;

/// A table with a title, and notes below it that say what is compared.
#[derive(Debug, Default)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let heads = columns.iter().map(|it| (*it).to_owned()).collect();
        Self { title: title.to_owned(), rows: vec![heads], notes: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Adds a note.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if index == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(f, "| {} |", rule.join(" | "))?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

/// One line on the machine.
pub(crate) fn host(host: &Value) -> String {
    let text = |key: &str| host[key].as_str().unwrap_or("?").to_owned();
    format!(
        "{}, kernel {}, {} CPUs, load {}, agent-loop {}\nmedian (min – max) of {} rounds",
        text("date"),
        text("kernel"),
        host["cpus"],
        text("loadavg"),
        text("commit"),
        host["rounds"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new("t", &["a", "long"]);
        table.row(["wider".to_owned(), "b".to_owned()]);
        table.note("n");
        assert_eq!(table.to_string(), "t\n| a     | long |\n| ----- | ---- |\n| wider | b    |\n  n\n");
    }
}
