//! Records in other formats: CSV for tables, the Chrome trace for a timeline, OCSF for collectors of events.
//!
//! Inside: a function for each format, record in, text out. Not inside: where it goes. Called by `cli`.

mod chrome;
mod csv;
mod ocsf;

pub use chrome::Chrome;
pub use csv::Csv;
pub use ocsf::{Ocsf, VERSION as OCSF_VERSION};
