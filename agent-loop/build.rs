//! Embeds the eBPF object that `cargo xtask build-ebpf` left, if it did.

use std::env;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

fn main() -> Result<(), Error> {
    let manifest = path_of("CARGO_MANIFEST_DIR")?;
    let object = manifest.parent().unwrap_or(&manifest).join("target/agent-loop-ebpf.o");
    let embedded = path_of("OUT_DIR")?.join("agent-loop-ebpf.o");

    println!("cargo::rustc-check-cfg=cfg(no_bpf_object)");
    println!("cargo::rerun-if-changed=build.rs");
    watch(&object);
    match fs::read(&object) {
        Ok(bytes) => fs::write(&embedded, bytes),
        Err(missing) if missing.kind() == ErrorKind::NotFound => {
            println!("cargo::rustc-cfg=no_bpf_object");
            fs::write(&embedded, [])
        }
        Err(error) => Err(error),
    }
}

fn path_of(variable: &str) -> Result<PathBuf, Error> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| Error::other(format!("{variable} is not set")))
}

/// Runs this script again when the object appears, changes or goes.
///
/// Cargo takes a watched file that is missing as changed each time, so that every build would compile again:
/// a missing object is looked for through this stamp instead.
fn watch(object: &Path) {
    println!("cargo::rerun-if-changed={}", object.display());
}
