//! A terminal: what a person types and sees.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};

use super::eventually;
use crate::sys;

/// The keyboard and screen of a terminal.
#[derive(Debug)]
pub struct Terminal {
    keys: File,
    screen: Arc<Mutex<String>>,
    other: OwnedFd,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// A new one of 80 columns and 24 rows.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn new() -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal");
        // Held by another test's program, the keyboard would outlive this test and its shell never be hung up.
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("an open descriptor");
        }
        let mut output = File::from(pty.master.try_clone().expect("a descriptor"));
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut block = [0; 4096];
            // EIO once the last holder of the other side is gone.
            while let Ok(len @ 1..) = output.read(&mut block) {
                let text = String::from_utf8_lossy(&block[..len]);
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { keys: pty.master.into(), screen, other: pty.slave }
    }

    /// Makes this the controlling terminal and the standard streams of `command`.
    ///
    /// # Panics
    /// When there is no descriptor.
    pub fn attach<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let side = || self.other.try_clone().expect("a descriptor");
        command.stdin(side()).stdout(side()).stderr(side());
        sys::before_exec(command, || {
            sys::default_signals();
            sys::take_terminal(std::io::stdin().as_fd())
        })
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When it is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// All that was ever written on the screen.
    #[must_use]
    pub fn shown(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for this text.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("{text:?} on the screen"), |shown| shown.contains(text));
    }

    /// Waits for what `fits` sees on the screen, which a failure shows.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_until(&self, what: &str, fits: impl Fn(&str) -> bool) {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || fits(&self.shown()).then_some(()));
        }));
        assert!(done.is_ok(), "the screen:\n{}", self.shown());
    }
}
