//! Everything that reads bytes which others wrote, each as a function of any bytes: it may refuse them, no more.
//!
//! `cargo xtask fuzz` calls them under libFuzzer (`fuzz/`), `tests/tests/fuzz.rs` with the committed inputs of
//! `fuzz/corpus/` and with [`mutate`]d ones.

mod audit;
mod control;
mod keeper;
mod mutate;
mod text;

use std::path::PathBuf;

pub use mutate::Mutator;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its file and of its inputs.
    pub name: &'static str,
    /// What is called.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "keeper", run: keeper::run },
    Target { name: "record", run: text::record },
    Target { name: "config", run: text::config },
    Target { name: "control", run: control::run },
    Target { name: "replay", run: text::replay },
    Target { name: "line", run: audit::line },
    Target { name: "segment", run: audit::segment },
    Target { name: "checkpoint", run: audit::checkpoint },
    Target { name: "bundle", run: audit::bundle },
];

/// The target of this name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}

impl Target {
    /// Its committed inputs, by their names.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(self.name);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&dir).expect("its inputs").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("an input")).collect()
    }
}
