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

/// Two readings that are no further apart belong together, nanoseconds.
const TOGETHER_NS: u64 = 50_000;

/// Now, on both clocks.
#[must_use]
pub fn both() -> Clock {
    let read = || {
        let clock = Clock { boot: boot(), real_ns: nanoseconds(ClockId::CLOCK_REALTIME) };
        (boot().0.saturating_sub(clock.boot.0), clock)
    };
    // Who is held up between the two reads them again: one tells when the other was.
    let (mut held_up, mut clock) = read();
    for _ in 0..5 {
        if held_up < TOGETHER_NS {
            break;
        }
        let again = read();
        if again.0 < held_up {
            (held_up, clock) = again;
        }
    }
    clock
}

fn nanoseconds(clock: ClockId) -> i128 {
    // Both clocks exist on every kernel that agent-loop runs on; zero would only make times look old.
    clock_gettime(clock).map_or(0, |time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
}

/// How far CLOCK_BOOTTIME as we read it is ahead of the kernel's own, in nanoseconds: by the offset of our time
/// namespace, which the times in the kernel's records do not know (time_namespaces(7)).
#[must_use]
pub fn ahead_of_kernel() -> i64 {
    let namespace = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    // The file tells of the namespace that children will be in.
    if namespace("time") != namespace("time_for_children") {
        return 0;
    }
    std::fs::read_to_string("/proc/self/timens_offsets").ok().and_then(|text| boottime_offset(&text)).unwrap_or(0)
}

fn boottime_offset(text: &str) -> Option<i64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("boottime "))?.split_ascii_whitespace();
    let seconds: i64 = fields.next()?.parse().ok()?;
    let nanoseconds: i64 = fields.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read_to_the_nanosecond() {
        let text = "monotonic           7         0\nboottime      -100000 250000000\n";
        assert_eq!(boottime_offset(text), Some(-99_999_750_000_000));
        assert_eq!(boottime_offset("monotonic           0         0\nboottime            0         0\n"), Some(0));
        for strange in ["", "boottime", "boottime  x 0", "boottime 1", "monotonic 1 0"] {
            assert_eq!(boottime_offset(strange), None, "{strange:?}");
        }
    }
}
