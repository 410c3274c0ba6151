//! What is answered to a request that is not carried out.

use std::io;

use super::protocol::Reply;
use crate::keeper::cgroup::CgroupError;
use crate::keeper::launch::LaunchError;
use crate::keeper::signal::Refusal;

/// Why a request is not carried out.
#[derive(Debug)]
pub(super) struct Refused {
    why: String,
    errno: Option<i32>,
}

/// The longest reason that is given: it may quote what was asked.
const LONGEST_WHY: usize = 500;

impl Refused {
    pub(super) fn new(why: impl Into<String>) -> Self {
        let why: String = why.into();
        Self { why: why.chars().take(LONGEST_WHY).collect(), errno: None }
    }

    pub(super) fn because(doing: &str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self { errno: error.raw_os_error(), ..Self::new(format!("{doing}: {error}")) }
    }

    pub(super) fn reply(self) -> Reply {
        Reply::Refused { why: self.why, errno: self.errno }
    }
}

impl From<CgroupError> for Refused {
    fn from(error: CgroupError) -> Self {
        let errno = if let CgroupError::Io { source, .. } = &error { source.raw_os_error() } else { None };
        Self { errno, ..Self::new(error.to_string()) }
    }
}

impl From<LaunchError> for Refused {
    fn from(error: LaunchError) -> Self {
        let errno = if let LaunchError::Failed(failed) = &error { Some(failed.errno) } else { None };
        Self { errno, ..Self::new(error.to_string()) }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { errno: refusal.errno(), ..Self::new(refusal.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_bounded() {
        let refused = Refused::new("\u{1f600}".repeat(100_000));
        assert_eq!(refused.why.chars().count(), LONGEST_WHY);
    }
}
