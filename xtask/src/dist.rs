//! `cargo xtask dist`: the Debian package, with the eBPF program inside the binary.
//!
//! `cargo-deb` packs what `agent-loop/Cargo.toml` lists; manual pages and completions are made from the command line
//! itself. Every time in the package is that of the commit, so that the same binary gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{ebpf, place, progress, sbom, setup};

/// The version of cargo-deb that the package is described for.
const CARGO_DEB: &str = "3.8.0";

/// Runs `cargo xtask dist`; `debug` packs a debug build, to try the package out.
pub(crate) fn command(debug: bool) -> Result<()> {
    make(debug).map(drop)
}

/// Builds the package, and says where it is.
pub(crate) fn make(debug: bool) -> Result<PathBuf> {
    let packer = packer()?;
    ebpf::build(&setup::ensure()?)?;
    let mut build = place::host_cargo();
    // A debug build is the one that tests run, and made together with one: what it depends on is not built again.
    let what: &[&str] = if debug { &["--bins", "--test", "doctor"] } else { &["--package", "agent-loop", "--release"] };
    build.arg("build").args(what);
    if !debug {
        // Two machines build the same bytes, and none is named in them.
        build.env("CARGO_ENCODED_RUSTFLAGS", place::without_paths("--remap-path-prefix=", "\u{1f}"));
        build.env("CFLAGS", place::without_paths("-ffile-prefix-map=", " "));
    }
    progress::run("building agent-loop", &mut build)?;
    pages()?;
    sbom::write(&place::root().join("target/dist/pages/agent-loop.cdx.json"))
        .context("writing the bill of materials")?;
    let dir = place::target_dir().join("dist");
    let package = pack(&packer, &dir, debug)?;
    let (first, size) = (fs::read(&package).context("reading the package")?, fs::metadata(&package)?.len());
    // Packed again, it is the same to the byte.
    let again = pack(&packer, &dir.join("again"), debug)?;
    if fs::read(&again).context("reading the package")? != first {
        bail!("packed twice, {} differs from {}", again.display(), package.display());
    }
    fs::remove_dir_all(dir.join("again")).context("removing the second package")?;
    progress::say(&format!("{}: {size} bytes, the same when packed again", package.display()));
    Ok(package)
}

/// Manual pages and completions, below `target/dist/pages`.
fn pages() -> Result<()> {
    let dir = place::root().join("target/dist/pages");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let mut write = place::host_cargo();
    write.args(["run", "--quiet", "--bin", "pages", "--"]).arg(&dir);
    progress::run("writing manual pages and completions", &mut write)
}

fn pack(packer: &Path, dir: &Path, debug: bool) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(dir.join("deb"));
    let to = dir.join("deb");
    fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
    let mut pack = place::host_cargo();
    // The tool is found by cargo's own way: as `cargo-deb` in PATH.
    let mut path = packer.parent().map(Path::to_path_buf).unwrap_or_default().into_os_string();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    pack.env("PATH", path).env("SOURCE_DATE_EPOCH", commit_time()?);
    pack.args(["deb", "--no-build", "--quiet", "--package", "agent-loop", "--strip", "--output"]).arg(&to);
    if debug {
        pack.args(["--profile", "dev", "--fast"]);
    }
    progress::run("packing", &mut pack)?;
    let mut made = fs::read_dir(&to).context("looking for the package")?.flatten().map(|entry| entry.path());
    made.find(|path| path.extension().is_some_and(|end| end == "deb")).context("cargo-deb made no package")
}

/// Seconds since 1970 of the commit that is packed.
fn commit_time() -> Result<String> {
    let said = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(place::root()).output();
    let said = said.context("asking git for the time of the commit")?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if !said.status.success() || text.is_empty() {
        bail!("git does not tell the time of the commit: {}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(text)
}

/// `cargo-deb`, installed to `target/tools` once.
fn packer() -> Result<PathBuf> {
    let tools = place::root().join("target/tools");
    let program = tools.join("bin/cargo-deb");
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains(CARGO_DEB)) {
        return Ok(program);
    }
    progress::say(&format!("installing cargo-deb {CARGO_DEB} (once)"));
    let mut install = place::host_cargo();
    install.args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--root"]).arg(&tools);
    progress::run("installing cargo-deb", &mut install)?;
    Ok(program)
}
