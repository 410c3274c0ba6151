//! Embeds the eBPF object that `cargo xtask build-ebpf` left, if it did.

use std::env;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;

fn main() -> Result<(), Error> {
    let manifest = path_of("CARGO_MANIFEST_DIR")?;
    let object = manifest.parent().unwrap_or(&manifest).join("target/agent-loop-ebpf.o");
    let embedded = path_of("OUT_DIR")?.join("agent-loop-ebpf.o");

    println!("cargo::rustc-check-cfg=cfg(no_bpf_object)");
    println!("cargo::rerun-if-changed=build.rs");
    // While it is missing cargo runs this script on every build, and so sees it appear.
    println!("cargo::rerun-if-changed={}", object.display());
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
