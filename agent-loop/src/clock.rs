//! The clocks. Decisions are made by CLOCK_BOOTTIME alone; people read CLOCK_REALTIME.

use nix::time::{ClockId, clock_gettime};

use crate::audit::Clock;
use crate::model::BootNs;

/// Now, on CLOCK_BOOTTIME.
#[must_use]
pub fn boot() -> BootNs {
    BootNs(u64::try_from(nanoseconds(ClockId::CLOCK_BOOTTIME)).unwrap_or(0))
}

/// Now, on CLOCK_MONOTONIC: the time that the host was awake.
#[must_use]
pub fn awake() -> BootNs {
    BootNs(u64::try_from(nanoseconds(ClockId::CLOCK_MONOTONIC)).unwrap_or(0))
}

/// Now, on both clocks.
#[must_use]
pub fn both() -> Clock {
    Clock { boot: boot(), real_ns: nanoseconds(ClockId::CLOCK_REALTIME) }
}

fn nanoseconds(clock: ClockId) -> i128 {
    // Both clocks exist on every kernel that agent-loop runs on; zero would only make times look old.
    clock_gettime(clock).map_or(0, |time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
}
