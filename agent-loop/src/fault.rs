//! Steps at which a test may have this very process end, as SIGKILL would end it: nothing is flushed, nothing is told.
//!
//! Only in builds with debug assertions; in a release build a step is nothing. `AGENT_LOOP_FAULT=daemon:17` ends the
//! daemon at the seventeenth step that it passes; `AGENT_LOOP_FAULT=daemon:17:FILE` only the one that can remove that
//! file, so that of a daemon and those that come after it one ends. Steps are numbered by passing, not named: a test that counts up
//! until a process lives to its end has been at every one of them.

/// Which process passes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `serve`.
    Daemon,
    /// `keeper`.
    Keeper,
    /// The issue loop of `serve`: before and after each thing that it remembers or writes.
    Issues,
}

/// Passes a step.
#[cfg(debug_assertions)]
pub fn step(role: Role) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ENDS_AT: OnceLock<Option<(Role, u64, Option<std::path::PathBuf>)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let ends_at = ENDS_AT.get_or_init(|| {
        let text = std::env::var("AGENT_LOOP_FAULT").ok()?;
        let mut parts = text.splitn(3, ':');
        let (role, number) = (parts.next()?, parts.next()?);
        let role = match role {
            "daemon" => Role::Daemon,
            "keeper" => Role::Keeper,
            "issues" => Role::Issues,
            _ => return None,
        };
        Some((role, number.parse().ok()?, parts.next().map(Into::into)))
    });
    if let Some((which, number, once)) = ends_at
        && *which == role
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *number
        && once.as_ref().is_none_or(|file| std::fs::remove_file(file).is_ok())
    {
        std::process::abort();
    }
}

/// Passes a step: nothing in this build.
#[cfg(not(debug_assertions))]
pub const fn step(_: Role) {}

/// Has this thread panic where a test asked for it: `AGENT_LOOP_FAULT=panic:THREAD:FILE`, once that file can be removed.
#[cfg(debug_assertions)]
pub fn panic_in(thread: &str) {
    let fault = std::env::var("AGENT_LOOP_FAULT").unwrap_or_default();
    let file = fault.strip_prefix("panic:").and_then(|rest| rest.strip_prefix(thread)?.strip_prefix(':'));
    assert!(file.is_none_or(|file| std::fs::remove_file(file).is_err()), "as a test asked for");
}

/// Has this thread panic: not in this build.
#[cfg(not(debug_assertions))]
pub const fn panic_in(_: &str) {}

/// Makes the kernel side blind for a moment, by what is given, where a test asked for it: `AGENT_LOOP_FAULT=blind`.
#[cfg(debug_assertions)]
pub fn blind(by: impl FnOnce()) {
    if std::env::var_os("AGENT_LOOP_FAULT").is_some_and(|fault| fault == "blind") {
        by();
    }
}

/// Whether trials are to be taken for such whose records were lost: `AGENT_LOOP_FAULT=lossy:FILE`, while it is there.
#[must_use]
#[cfg(debug_assertions)]
pub fn is_lossy() -> bool {
    let fault = std::env::var("AGENT_LOOP_FAULT").unwrap_or_default();
    fault.strip_prefix("lossy:").is_some_and(|file| std::path::Path::new(file).exists())
}

/// Whether trials are to be taken for such whose records were lost: not in this build.
#[must_use]
#[cfg(not(debug_assertions))]
pub const fn is_lossy() -> bool {
    false
}

/// Makes the kernel side blind: not in this build.
#[cfg(not(debug_assertions))]
pub fn blind(_: impl FnOnce()) {}
