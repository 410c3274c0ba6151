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
    Ok(
        json!({ "count": count, "seconds": elapsed.as_secs_f64(), "us_each": elapsed.as_secs_f64() * 1e6 / count as f64 }),
    )
}
