//! `cargo xtask build-ebpf`: the eBPF program, built for the kernel's target into one fixed file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};
use rustc_demangle::demangle;

use crate::setup::{self, Toolchain};
use crate::{place, progress};

const TARGET: &str = "bpfel-unknown-none";
const INSTRUCTION_BYTES: u64 = 8;

/// Runs `cargo xtask build-ebpf`.
pub(crate) fn command() -> Result<()> {
    build(&setup::installed()?)
}

/// Builds the object, writes it if it changed, and prints the size of each program.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    progress::say(&format!("building the eBPF program with {}", toolchain.compiler));
    let target_dir = place::root().join("target/ebpf");
    let mut cargo = place::clean_cargo();
    cargo
        .env("RUSTC", &toolchain.compiler.path)
        // `-Z build-std` with a compiler that is no nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker.path)
        // With `--target`, these reach neither build scripts nor procedural macros.
        .env("CARGO_ENCODED_RUSTFLAGS", flags())
        .args(["build", "--package", "agent-loop-ebpf", "--release", "--target", TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(&target_dir);
    progress::run("build-ebpf", &mut cargo)?;

    let built = target_dir.join(TARGET).join("release/agent-loop-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let programs = sizes(&bytes).with_context(|| format!("reading the ELF file {}", built.display()))?;
    let object = place::ebpf_object();
    let written = write_if_changed(&object, &bytes)?;
    print(&programs);
    let state = if written { "written" } else { "unchanged" };
    progress::note(&format!("target/agent-loop-ebpf.o: {} bytes, {state}", bytes.len()));
    Ok(())
}

/// The compiler's flags; paths of this machine are kept out of the object's debug information.
fn flags() -> OsString {
    let mut flags = OsString::from("-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}");
    flags.push(place::without_paths("--remap-path-prefix=", "\u{1f}"));
    flags
}

/// Writes `bytes` unless the file has just these, so that nothing that depends on it is built again in vain.
fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let fresh = file.with_extension("o.new");
    fs::write(&fresh, bytes).with_context(|| format!("writing {}", fresh.display()))?;
    fs::rename(&fresh, file).with_context(|| format!("renaming to {}", file.display()))?;
    Ok(true)
}

/// The functions of each executable section, with their sizes in bytes.
fn sizes(bytes: &[u8]) -> Result<BTreeMap<String, Vec<(String, u64)>>> {
    let file = object::File::parse(bytes)?;
    if file.section_by_name(".BTF").is_none() {
        bail!("it has no .BTF section: the linker was not asked for BTF, or could not write it");
    }
    let mut programs: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        if sh_flags & u64::from(elf::SHF_EXECINSTR) == 0 || section.size() == 0 {
            continue;
        }
        let functions = programs.entry(section.name()?.to_owned()).or_default();
        for symbol in file.symbols() {
            if symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(section.index()) {
                functions.push((format!("{:#}", demangle(symbol.name()?)), symbol.size()));
            }
        }
        functions.sort();
    }
    Ok(programs)
}

fn print(programs: &BTreeMap<String, Vec<(String, u64)>>) {
    if programs.is_empty() {
        progress::note("it holds no program yet");
        return;
    }
    progress::note(&format!("{:>12} {:>8}  program", "instructions", "bytes"));
    // What the programs call comes after them.
    let (helpers, hooks): (Vec<_>, Vec<_>) = programs.iter().partition(|(section, _)| *section == ".text");
    for (section, functions) in hooks.into_iter().chain(helpers) {
        for (function, size) in functions {
            progress::note(&format!("{:>12} {size:>8}  {section} {function}", size / INSTRUCTION_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_is_not_written_again() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = dir.path().join("x.o");
        assert!(write_if_changed(&file, b"one").expect("writes"));
        assert!(!write_if_changed(&file, b"one").expect("compares"));
        assert!(write_if_changed(&file, b"two").expect("writes"));
        assert_eq!(fs::read(&file).expect("is there"), b"two");
    }

    #[test]
    fn what_is_no_elf_file_is_an_error() {
        assert!(sizes(b"not an object").is_err());
    }
}
