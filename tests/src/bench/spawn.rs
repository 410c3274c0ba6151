//! Births and deaths one after the other: what a tracer slows down.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::sys;

/// How a child is made.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum How {
    /// posix_spawn of `true`.
    Exec,
    /// fork, and `_exit` at once.
    Fork,
}

/// Makes and awaits children for `span`.
pub(super) fn measure(how: How, span: Duration) -> anyhow::Result<Value> {
    sys::die_after(span + Duration::from_secs(30))?;
    let (began, used) = (Instant::now(), cpu_us()?);
    let mut count = 0_u64;
    while began.elapsed() < span {
        match how {
            How::Exec => {
                let status = Command::new("/bin/true").stdin(Stdio::null()).status()?;
                anyhow::ensure!(status.success(), "true failed: {status}");
            }
            How::Fork => {
                let pid = sys::fork_exiting(0)?;
                sys::wait(pid)?;
            }
        }
        count += 1;
    }
    let elapsed = began.elapsed();
    let each = |us: f64| us / count as f64;
    Ok(json!({
        "count": count,
        "us_each": each(elapsed.as_secs_f64() * 1e6),
        "cpu_us_each": each(cpu_us()? - used),
    }))
}

/// The processor time of this process and of its children that have ended: hooks run on theirs.
fn cpu_us() -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
        }
    }
    Ok(sum)
}
