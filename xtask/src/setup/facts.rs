//! What this machine has. Looks, and changes nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place;

/// The release of bpf-linker that is known to work.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The LLVM versions that this release can be built with.
pub(crate) const LINKER_LLVM: [u32; 3] = [21, 22, 23];
/// The oldest compiler that can build the workspace.
pub(crate) const OLDEST: (u32, u32) = (1, 95);

/// A compiler, with or without its library source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its version.
    pub(crate) version: (u32, u32),
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// Whether the source of the standard library, for exactly this compiler, lies beside it.
    pub(crate) source: bool,
    /// Who installed it.
    pub(crate) origin: Origin,
}

/// Who installed a compiler, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A nightly of rustup.
    RustupNightly,
    /// Another toolchain of rustup.
    RustupOther,
    /// The distribution.
    Distribution,
}

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    /// The program.
    pub(crate) path: PathBuf,
    /// The major version of its LLVM, where it could be told.
    pub(crate) llvm: Option<u32>,
}

/// Development files of one LLVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Llvm {
    /// The major version.
    pub(crate) major: u32,
    /// The directory that has `bin/llvm-config`.
    pub(crate) prefix: PathBuf,
}

/// apt, where the machine has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Apt {
    /// The LLVM versions it offers, by its present lists.
    pub(crate) llvm: Vec<u32>,
    /// The packages that are installed, of those that matter.
    pub(crate) installed: Vec<String>,
}

/// Everything that a plan is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The compilers, best first.
    pub(crate) compilers: Vec<Compiler>,
    /// bpf-linker.
    pub(crate) linker: Option<Linker>,
    /// Development files of LLVM.
    pub(crate) llvms: Vec<Llvm>,
    /// Whether there is a C compiler.
    pub(crate) cc: bool,
    /// Whether there is a C++ compiler.
    pub(crate) cxx: bool,
    /// apt.
    pub(crate) apt: Option<Apt>,
    /// Whether we are root.
    pub(crate) root: bool,
    /// Whether apt's lists were fetched by this run.
    pub(crate) listed: bool,
}

impl Facts {
    /// Looks at the machine.
    pub(crate) fn gather() -> Self {
        Self {
            compilers: compilers(),
            linker: linker(),
            llvms: llvms(),
            cc: place::which("cc").is_some(),
            cxx: place::which("c++").is_some(),
            apt: place::which("apt-get").map(|_| apt()),
            root: is_root(),
            listed: false,
        }
    }

    /// Prints what was found.
    pub(crate) fn print(&self) {
        for compiler in &self.compilers {
            let source = if compiler.source { "with" } else { "without" };
            println!("compiler  {compiler}, {source} library source");
        }
        if self.compilers.is_empty() {
            println!("compiler  none");
        }
        for llvm in &self.llvms {
            println!("llvm      {} in {}", llvm.major, llvm.prefix.display());
        }
        match &self.linker {
            Some(linker) => println!("linker    {linker}"),
            None => println!("linker    no bpf-linker"),
        }
        let word = |there: bool| if there { "yes" } else { "no" };
        println!(
            "cc        {}; c++ {}; apt {}; root {}",
            word(self.cc),
            word(self.cxx),
            word(self.apt.is_some()),
            word(self.root)
        );
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version;
        write!(f, "rustc {major}.{minor} (LLVM {}) {}", self.llvm, self.path.display())
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.llvm {
            Some(llvm) => write!(f, "bpf-linker (LLVM {llvm}) {}", self.path.display()),
            None => write!(f, "bpf-linker (LLVM unknown) {}", self.path.display()),
        }
    }
}

fn compilers() -> Vec<Compiler> {
    let toolchains = place::rustup_home().map(|home| home.join("toolchains"));
    let mut found: Vec<Compiler> = toolchains
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .filter_map(|entry| {
            let nightly = entry.file_name().to_string_lossy().starts_with("nightly");
            let origin = if nightly { Origin::RustupNightly } else { Origin::RustupOther };
            compiler(&entry.path().join("bin/rustc"), origin)
        })
        .collect();
    let distribution = ["/usr/bin/rustc", "/usr/local/bin/rustc"].map(Path::new);
    found.extend(distribution.iter().filter_map(|path| compiler(path, Origin::Distribution)));
    found.sort_by_key(|it| (it.origin, std::cmp::Reverse(it.version)));
    found
}

fn compiler(path: &Path, origin: Origin) -> Option<Compiler> {
    // A proxy of rustup under a system path is no compiler of its own.
    if fs::canonicalize(path).ok()?.file_name()? == "rustup" {
        return None;
    }
    let (version, llvm) = parse_version(&output(Command::new(path).arg("-vV"))?)?;
    let sysroot = PathBuf::from(output(Command::new(path).args(["--print", "sysroot"]))?.trim());
    let source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file();
    Some(Compiler { path: path.to_owned(), version, llvm, source, origin })
}

/// Reads `rustc -vV`: the release and the LLVM major version.
fn parse_version(text: &str) -> Option<((u32, u32), u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut release = field("release: ")?.split('.');
    let version = (release.next()?.parse().ok()?, release.next()?.parse().ok()?);
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((version, llvm))
}

fn linker() -> Option<Linker> {
    let path = place::which("bpf-linker")?;
    output(Command::new(&path).arg("--version"))?;
    let loaded = output(Command::new("ldd").arg(&path)).and_then(|text| llvm_of_ldd(&text));
    let llvm = loaded.or_else(|| {
        let list = fs::read_to_string(place::cargo_home()?.join(".crates2.json")).ok()?;
        llvm_of_install(&list)
    });
    Some(Linker { path, llvm })
}

/// Reads the LLVM major version that `ldd` says is loaded: `libLLVM.so.22.1` or `libLLVM-22.so`.
fn llvm_of_ldd(text: &str) -> Option<u32> {
    leading_number(text.split("libLLVM").nth(1)?.trim_start_matches(".so.").trim_start_matches('-'))
}

/// Reads the feature that cargo noted for bpf-linker: `"features":["llvm-22"]`.
fn llvm_of_install(list: &str) -> Option<u32> {
    let entry = list.split("\"bpf-linker ").nth(1)?;
    let features = entry.split("\"features\":[").nth(1)?.split(']').next()?;
    features.split("llvm-").skip(1).find_map(leading_number)
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

fn llvms() -> Vec<Llvm> {
    let packaged = LINKER_LLVM.map(|major| PathBuf::from(format!("/usr/lib/llvm-{major}")));
    let on_path = place::which("llvm-config").and_then(|it| Some(it.parent()?.parent()?.to_owned()));
    packaged
        .into_iter()
        .chain(on_path)
        .filter(|prefix| prefix.join("include/llvm-c/Core.h").is_file())
        .filter_map(|prefix| {
            let version = output(Command::new(prefix.join("bin/llvm-config")).arg("--version"))?;
            Some(Llvm { major: leading_number(version.trim())?, prefix })
        })
        .collect()
}

/// The packages that a build of bpf-linker with LLVM `major` needs on Debian.
pub(crate) fn llvm_packages(major: u32) -> [String; 4] {
    [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"), "libzstd-dev".to_owned(), "zlib1g-dev".to_owned()]
}

fn apt() -> Apt {
    let names = output(Command::new("apt-cache").args(["pkgnames", "llvm-"])).unwrap_or_default();
    let offered = |major: &u32| names.lines().any(|name| name == format!("llvm-{major}-dev"));
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status} ${binary:Package}\n"]);
    query.args(LINKER_LLVM.iter().flat_map(|major| llvm_packages(*major)));
    // It fails when one of the names is unknown, and still prints the others.
    let states = query.output().map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    Apt { llvm: LINKER_LLVM.into_iter().filter(offered).collect(), installed: installed(&states) }
}

/// Reads lines like `installed zlib1g-dev:amd64`.
fn installed(states: &str) -> Vec<String> {
    let names = states.lines().filter_map(|line| line.strip_prefix("installed "));
    names.map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect()
}

/// Whether this program runs as root.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

fn output(command: &mut Command) -> Option<String> {
    // The outer cargo points this at its own compiler's libraries.
    let output = command.env_remove("LD_LIBRARY_PATH").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_real_output() {
        let text =
            "rustc 1.98.0-nightly (x 2026-05-25)\nbinary: rustc\nrelease: 1.98.0-nightly\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(text), Some(((1, 98), 22)));
        assert_eq!(parse_version("rustc 1.96.0\n"), None);
    }

    #[test]
    fn the_linkers_llvm_is_read_from_real_output() {
        assert_eq!(llvm_of_ldd("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)\n"), Some(22));
        assert_eq!(llvm_of_ldd("\tlibLLVM-19.so => /usr/lib/libLLVM-19.so (0x7f)\n"), Some(19));
        assert_eq!(llvm_of_ldd("\tlibc.so.6 => /lib/libc.so.6\n"), None);
        let list = r#"{"installs":{"bpf-linker 0.13.0 (registry)":{"bins":["bpf-linker"],"features":["llvm-22"]}}}"#;
        assert_eq!(llvm_of_install(list), Some(22));
        assert_eq!(llvm_of_install(r#"{"installs":{}}"#), None);
    }

    #[test]
    fn a_removed_package_is_not_installed() {
        let states = "installed zlib1g-dev:amd64\nconfig-files llvm-22-dev\nnot-installed libzstd-dev\n";
        assert_eq!(installed(states), ["zlib1g-dev"]);
    }
}
