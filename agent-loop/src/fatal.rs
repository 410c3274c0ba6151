//! A fault of our own in any thread ends the whole process: what is left of it would go on as if nothing were missing.
//!
//! The end of a daemon or a keeper is survived (agents go on, the next one takes them up by proof); a keeper that drains
//! nothing, or a daemon that remembers nothing and says so to nobody, is not noticed by anybody.

use std::io::Write as _;

use crate::audit::redact;

/// Has every panic of this process, in whatever thread or task, told as `who`'s on stderr and end it by SIGABRT.
pub fn ends_all(who: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let told = redact::said(&format!("a fault in the thread {name}: {panic}; this process ends, agents go on"));
        // Who does not read it loses it.
        let _ = std::io::stderr().write_all(format!("{who}: {}\n", told.replace('\n', " ")).as_bytes());
        // Secrets of runs are in its memory: no picture of that is left on a disk.
        let _ = nix::sys::prctl::set_dumpable(false);
        std::process::abort();
    }));
}
