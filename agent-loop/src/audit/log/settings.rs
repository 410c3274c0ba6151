//! Where a log is, and how it is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::retention::Keep;
use crate::audit::anchor::Anchor;

/// Where a log is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory of the log.
    pub audit: PathBuf,
    /// The directory of its private key, closed to all others.
    pub keys: PathBuf,
}

impl Place {
    /// The log and the key in one directory of state: `audit` and `audit-key`.
    #[must_use]
    pub fn below(dir: &Path) -> Self {
        Self { audit: dir.join("audit"), keys: dir.join("audit-key") }
    }
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A segment ends at this size, bytes.
    pub segment_bytes: u64,
    /// A segment ends at this age.
    pub segment_age: Duration,
    /// How much may wait for the disk, bytes; what does not fit is refused, counted and declared.
    pub pending_bytes: usize,
    /// Room that is given up when the disk is full, bytes; 0 is none.
    pub reserve: u64,
    /// With less room than this the disk counts as full, bytes.
    pub low_water: u64,
    /// How much is kept of closed segments.
    pub keep: Keep,
    /// Who is handed checkpoints.
    pub anchors: Vec<Arc<dyn Anchor>>,
    /// How often, where there is a new one; and at the end.
    pub anchor_every: Duration,
}

impl Default for Settings {
    /// 64 MiB or a day for a segment, 64 MiB in memory, 16 MiB in reserve, full below 64 MiB, everything kept; no anchor, ten minutes
    /// for one.
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(24 * 3_600),
            pending_bytes: 64 << 20,
            reserve: 16 << 20,
            low_water: 64 << 20,
            keep: Keep::default(),
            anchors: Vec::new(),
            anchor_every: Duration::from_secs(600),
        }
    }
}
