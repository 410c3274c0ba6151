//! Records in other formats: CSV for tables, the Chrome trace for a timeline.
//!
//! Inside: a function for each format, record in, text out. Not inside: where it goes. Called by `cli`.

mod chrome;
mod csv;

pub use chrome::Chrome;
pub use csv::Csv;
