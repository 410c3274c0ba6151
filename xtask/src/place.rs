//! Where things are, and how cargo is called from inside cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// The one place of the built eBPF object; `agent-loop`'s build script embeds this file.
pub(crate) fn ebpf_object() -> PathBuf {
    root().join("target/agent-loop-ebpf.o")
}

/// Where logs and scratch files of these commands go.
pub(crate) fn scratch() -> PathBuf {
    root().join("target/xtask")
}

/// Where cargo builds for this host.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The directory that `cargo install` puts programs into.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    env::var_os("CARGO_INSTALL_ROOT").map(PathBuf::from).or_else(cargo_home).map(|home| home.join("bin"))
}

/// Cargo's home, by its own rule.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    in_home("CARGO_HOME", ".cargo")
}

/// rustup's home, by its own rule.
pub(crate) fn rustup_home() -> Option<PathBuf> {
    in_home("RUSTUP_HOME", ".rustup")
}

fn in_home(variable: &str, otherwise: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(otherwise)))
}

/// The file that running `program` would execute, with cargo's own directory looked at too.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(cargo_bin()).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A cargo that builds for this host with the caller's toolchain and flags.
pub(crate) fn host_cargo() -> Command {
    cargo(about_this_package)
}

/// Flags that keep this machine's paths out of what is built: `flag` is what names a prefix and what stands for it.
pub(crate) fn without_paths(flag: &str, between: &str) -> OsString {
    let prefixes = [(Some(root().to_owned()), "."), (cargo_home(), "cargo")];
    let mut flags = OsString::new();
    for (path, name) in prefixes.into_iter().filter_map(|(path, name)| Some((path?, name))) {
        if !flags.is_empty() {
            flags.push(between);
        }
        flags.push(flag);
        flags.push(path);
        flags.push("=");
        flags.push(name);
    }
    flags
}

/// A cargo that inherits nothing of the outer one: neither its toolchain, nor its flags, nor its target.
pub(crate) fn clean_cargo() -> Command {
    cargo(|name| about_this_package(name) || chooses_how_to_build(name))
}

fn cargo(leaks: impl Fn(&str) -> bool) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(&leaks) {
            command.env_remove(name);
        }
    }
    command
}

/// Set by the outer `cargo run` for this program alone.
fn about_this_package(name: &str) -> bool {
    name == "LD_LIBRARY_PATH" || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|it| name.starts_with(it))
}

/// Chooses the compiler, its flags, the profile or the target.
fn chooses_how_to_build(name: &str) -> bool {
    const PREFIXES: [&str; 6] =
        ["CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PROFILE_", "CARGO_UNSTABLE_", "RUSTC", "RUSTDOC"];
    const NAMES: [&str; 4] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_INCREMENTAL", "RUSTUP_TOOLCHAIN"];
    NAMES.contains(&name) || PREFIXES.iter().any(|it| name.starts_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchain_and_flags_of_the_outer_cargo_do_not_leak() {
        for name in [
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
        ] {
            assert!(chooses_how_to_build(name), "{name}");
        }
        for name in ["CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "PATH", "HOME"] {
            assert!(!chooses_how_to_build(name) && !about_this_package(name), "{name}");
        }
        assert!(about_this_package("LD_LIBRARY_PATH") && about_this_package("CARGO_PKG_NAME"));
    }
}
