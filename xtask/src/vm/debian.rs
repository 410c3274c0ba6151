//! Packages of Debian, fetched and unpacked below `target/vm`; nothing of it is installed.
//!
//! Each suite has a source list, lists and a cache of its own, so that those of the system are not touched. The mirror is
//! the one that this machine's own apt uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::home;
use crate::{place, progress};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where kernels are looked for, in this order.
const SUITES: [&str; 4] = ["bookworm", "trixie", "trixie-backports", "bullseye-security"];
/// Where the newest is.
const NEWEST: &str = "trixie-backports";
const FLAVOUR: &str = "-cloud-amd64";
const OLD_LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The programs that are not of this machine.
#[derive(Debug)]
pub(super) struct Tools {
    /// `None`: the machine's own QEMU is used.
    unpacked: Option<PathBuf>,
    /// A static busybox.
    pub(super) busybox: PathBuf,
}

impl Tools {
    /// QEMU, with where its libraries and firmware are.
    pub(super) fn qemu(&self) -> Command {
        let Some(root) = &self.unpacked else { return Command::new("qemu-system-x86_64") };
        let mut command = Command::new(root.join("usr/bin/qemu-system-x86_64"));
        // Some packages still have theirs in /lib.
        let libraries = format!("{0}/{LIBRARIES}:{0}/{OLD_LIBRARIES}", root.display());
        command.env("LD_LIBRARY_PATH", libraries).env("QEMU_MODULE_DIR", root.join(LIBRARIES).join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(firmware));
        }
        command
    }
}

/// A kernel that was unpacked.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// As in its package's name.
    pub(super) release: String,
    /// The version of the package.
    pub(super) package_version: String,
    /// The file that is booted.
    pub(super) image: PathBuf,
}

/// QEMU, of this machine or unpacked, and busybox.
pub(super) fn tools() -> Result<Tools> {
    let own = place::which("qemu-system-x86_64").is_some();
    let root = home().join("tools");
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| root.join(path));
    let there = || busybox.iter().find(|path| path.exists()).cloned();
    if there().is_none() || !own && !root.join("usr/bin/qemu-system-x86_64").exists() {
        let codename = codename()?;
        let apt = Suite::open(&codename)?;
        let mut install = apt.command("apt-get");
        // What this would remove from the system decides nothing: it only downloads.
        install.args(["install", "--yes", "--download-only", "--no-install-recommends", "busybox-static"]);
        if !own {
            install.arg("qemu-system-x86");
        }
        progress::run("fetch QEMU and busybox", &mut install)?;
        let archives = apt.dir.join("cache/archives");
        for deb in debs(&archives)? {
            unpack(&deb, &root)?;
            fs::remove_file(&deb).with_context(|| format!("removing {}", deb.display()))?;
        }
    }
    let busybox = there().context("busybox-static came without busybox; is it installed? then `apt-get remove` it")?;
    Ok(Tools { unpacked: (!own).then_some(root), busybox })
}

/// The newest kernel of this line, unpacked; what is there already is not looked for again.
pub(super) fn kernel(wanted: &str) -> Result<Kernel> {
    let dir = home().join("kernels").join(wanted);
    if let Some(kernel) = known(&dir) {
        return Ok(kernel);
    }
    let suites: &[&str] = if wanted == "newest" { &[NEWEST] } else { &SUITES };
    let mut unreachable = Vec::new();
    for suite in suites {
        let apt = match Suite::open(suite) {
            Ok(apt) => apt,
            Err(error) => {
                progress::note(&format!("{suite} cannot be reached: {error:#}"));
                unreachable.push(*suite);
                continue;
            }
        };
        let Some(release) = newest_of(wanted, &apt.names("linux-image-")?) else { continue };
        return apt.fetch_kernel(&release, &dir);
    }
    match unreachable.as_slice() {
        [] => bail!("no suite has it; `--kernel newest` takes what there is"),
        suites => bail!("not in the suites that were reached, and these were not: {}", suites.join(", ")),
    }
}

/// What an earlier run left.
fn known(dir: &Path) -> Option<Kernel> {
    let text = fs::read_to_string(dir.join("version")).ok()?;
    let (release, version) = text.trim().split_once(' ')?;
    let image = dir.join("vmlinuz");
    image.exists().then(|| Kernel { release: release.to_owned(), package_version: version.to_owned(), image })
}

/// The highest release of the line, by the names of packages.
fn newest_of(wanted: &str, packages: &[String]) -> Option<String> {
    let releases = packages.iter().filter_map(|name| name.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR));
    let of_line = |release: &&str| {
        let numbers = numbers(release);
        numbers.len() > 2 && (wanted == "newest" || numbers.starts_with(&self::numbers(wanted)))
    };
    releases.filter(of_line).max_by_key(|release| numbers(release)).map(str::to_owned)
}

fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// One suite, with what apt knows of it.
struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// Fetches its list, unless it is there.
    fn open(name: &str) -> Result<Self> {
        let suite = Self { dir: home().join("suites").join(name) };
        let (lists, ready) = (suite.dir.join("lists"), suite.dir.join("ready"));
        if ready.exists() {
            return Ok(suite);
        }
        for dir in [lists.join("partial"), suite.dir.join("cache/archives/partial")] {
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let line = format!("deb [signed-by={KEYRING}] {} {name} main\n", mirror(name.ends_with("-security"))?);
        fs::write(suite.dir.join("sources.list"), line).context("writing a source list")?;
        let mut update = suite.command("apt-get");
        update.args(["-o", "Acquire::Retries=2", "-o", "APT::Update::Error-Mode=any", "update"]);
        progress::run(&format!("apt-get update of {name}"), &mut update)?;
        fs::write(ready, "").context("marking the list as complete")?;
        Ok(suite)
    }

    /// A command of apt that knows this suite alone.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["pkgnames", prefix]).output().context("starting apt-cache")?;
        if !output.status.success() {
            bail!("apt-cache: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// From 7.x on `linux-image-*` is empty, and `linux-binary-*` has the kernel.
    fn fetch_kernel(&self, release: &str, dir: &Path) -> Result<Kernel> {
        for kind in ["image", "binary"] {
            let scratch = home().join("scratch");
            drop(fs::remove_dir_all(&scratch));
            fs::create_dir_all(&scratch).context("creating a scratch directory")?;
            let package = format!("linux-{kind}-{release}{FLAVOUR}");
            let mut download = self.command("apt-get");
            progress::run(&format!("fetch {package}"), download.args(["download", &package]).current_dir(&scratch))?;
            let deb = debs(&scratch)?.pop().context("apt-get download left no package")?;
            unpack(&deb, &scratch.join("root"))?;
            let name = deb.file_name().unwrap_or_default().to_string_lossy().replace("%3a", ":");
            let version = name.split('_').nth(1).unwrap_or("unknown").to_owned();
            let found = vmlinuz(&scratch.join("root"));
            if let Some(image) = &found {
                fs::create_dir_all(dir).context("creating the kernel's directory")?;
                fs::copy(image, dir.join("vmlinuz")).context("keeping the kernel")?;
                fs::write(dir.join("version"), format!("{release}{FLAVOUR} {version}\n"))
                    .context("keeping its version")?;
            }
            drop(fs::remove_dir_all(&scratch));
            if found.is_some() {
                return known(dir).context("the kernel that was just kept is not there");
            }
        }
        bail!("neither linux-image nor linux-binary of {release} has a kernel")
    }
}

fn vmlinuz(root: &Path) -> Option<PathBuf> {
    let modules = fs::read_dir(root.join("usr/lib/modules")).into_iter().flatten().filter_map(Result::ok);
    let boot = fs::read_dir(root.join("boot")).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    boot.chain(modules.map(|entry| entry.path().join("vmlinuz"))).find(|path| named(path) && path.exists())
}

fn debs(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|it| it == "deb")).collect())
}

fn unpack(deb: &Path, to: &Path) -> Result<()> {
    let status = Command::new("dpkg-deb").arg("-x").arg(deb).arg(to).status().context("starting dpkg-deb")?;
    if !status.success() {
        bail!("unpacking {}: {status}", deb.display());
    }
    Ok(())
}

fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let debian = text.lines().any(|line| line == "ID=debian");
    match name.filter(|_| debian) {
        Some(name) => Ok(name.trim_matches('"').to_owned()),
        None => bail!("this is not a Debian; install qemu-system-x86 and run it in a container of Debian"),
    }
}

/// Where this machine's apt has Debian from.
fn mirror(security: bool) -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN)|$(RELEASE)|$(REPO_URI)", "Created-By: Packages"])
        .output()
        .context("starting apt-get, by which kernels are fetched")?;
    mirror_of(&String::from_utf8_lossy(&output.stdout), security)
        .context("apt knows no suite of Debian; `apt-get update` fetches the lists that name it")
}

fn mirror_of(targets: &str, security: bool) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let (origin, release, uri) = (fields.next()?, fields.next()?, fields.next()?);
        (origin == "Debian" && release.ends_with("-security") == security).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_line_is_by_number_and_of_this_flavour() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-60-rt-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(newest_of("6.1", &names).as_deref(), Some("6.1.0-50"));
        assert_eq!(newest_of("newest", &names).as_deref(), Some("6.12.107+deb13"));
        assert_eq!(newest_of("6.18", &names), None);
    }

    #[test]
    fn the_mirror_is_that_of_the_machine_and_security_has_its_own() {
        let targets =
            "|x|http://other/\nDebian|stable|http://mirror/debian/\nDebian|stable-security|http://mirror/s/\n";
        assert_eq!(mirror_of(targets, false).as_deref(), Some("http://mirror/debian/"));
        assert_eq!(mirror_of(targets, true).as_deref(), Some("http://mirror/s/"));
        assert_eq!(mirror_of("", true), None);
    }
}
