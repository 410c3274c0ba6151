//! `cargo xtask service`: the life of the service under a real systemd, from the installation of the package to its purge.
//!
//! A minimal Debian is made once below `target/service` and booted by `systemd-nspawn` on this host's kernel, with a
//! hierarchy of cgroups and a bpf file system of its own, and nothing of it is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::install;
use crate::{claude, dist, place, progress};

/// What is played inside; in virtual machines too.
pub(crate) const LIFE: &str = include_str!("service/life.sh");
/// How it is begun.
const UNIT: &str = "[Unit]\nDescription=The life of agent-loop\nAfter=dbus.service basic.target\n\n[Service]\nType=oneshot\n\
     ExecStart=/life.sh\nTimeoutStartSec=900\n";
/// What is in the machine beside a minimal Debian.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,procps,git,jq,passwd,util-linux,tcc,libc6-dev,bubblewrap,\
     ca-certificates,openssl,socat";
/// How long a life may take, seconds.
const PATIENCE: &str = "300";

/// Boots the machine: in a mount namespace of its own, so that this host sees nothing of it.
const BOOT: &str = "
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir /run/bpf
mount -t bpf bpf /run/bpf
exec timeout \"$3\" systemd-nspawn --quiet --boot --directory=\"$1\" --register=no --keep-unit --private-network \\
    --volatile=overlay --console=pipe --capability=all --system-call-filter=bpf \\
    --system-call-filter=perf_event_open --bind=\"$2\":/out --bind=/run/bpf:/sys/fs/bpf --link-journal=no
";

/// Runs `cargo xtask service`; `release` packs a release build, as it is shipped.
pub(crate) fn command(release: bool) -> Result<()> {
    if place::which("systemd-nspawn").is_none() {
        install(&["systemd-container"])?;
    }
    let root = debian(!release)?;
    let home = place::target_dir().join("service");
    let out = home.join("out");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let mut boot = Command::new("unshare");
    boot.args(["--mount", "bash", "-c", BOOT, "boot"]).arg(&root).arg(&out).arg(PATIENCE);
    let booted = progress::run("booting systemd and playing the life of the service", &mut boot);
    tell(&out)?;
    booted.with_context(|| format!("what happened is in {}", out.join("log").display()))
}

/// A minimal Debian with the package, and with a unit that plays its life; `debug` packs a debug build.
pub(crate) fn debian(debug: bool) -> Result<PathBuf> {
    if place::which("mmdebstrap").is_none() {
        install(&["mmdebstrap"])?;
    }
    let root = place::target_dir().join("service/root");
    let made_of = root.join("made-of");
    if fs::read_to_string(&made_of).ok().as_deref() != Some(PACKAGES) {
        make(&root)?;
        fs::write(&made_of, PACKAGES).with_context(|| format!("writing {}", made_of.display()))?;
    }
    match claude::ensure() {
        Ok(claude) => {
            fs::copy(claude, root.join("usr/local/bin/claude")).context("putting claude into the machine")?;
        }
        Err(error) => progress::note(&format!("without the real claude: {error:#}")),
    }
    let mut build = place::host_cargo();
    build.args(["build", "--package", "agent-loop-tests", "--bin", "forge"]);
    progress::run("building the forge that the service works at", &mut build)?;
    fs::copy(place::target_dir().join("debug/forge"), root.join("usr/local/bin/forge")).context("putting it there")?;
    let package = dist::make(debug)?;
    fs::copy(&package, root.join("agent-loop.deb")).context("putting the package into the machine")?;
    script(&root, "life.sh", LIFE)?;
    fs::write(root.join("etc/systemd/system/life.service"), UNIT)?;
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    let link = wants.join("life.service");
    if fs::symlink_metadata(&link).is_err() {
        std::os::unix::fs::symlink("/etc/systemd/system/life.service", &link)?;
    }
    Ok(root)
}

/// Writes a script that can be executed.
pub(crate) fn script(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("setting a mode")
}

/// A minimal Debian of this host's release, from this host's own mirrors.
fn make(root: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(root);
    // mmdebstrap makes one directory, and not those above it.
    fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    let release = fs::read_to_string("/etc/os-release").context("reading the name of this release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.context("this is no Debian: its release has no name")?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--variant=minbase", &format!("--include={PACKAGES}")]);
    for entry in fs::read_dir("/etc/apt/apt.conf.d").into_iter().flatten().flatten() {
        let path = entry.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        // How the mirrors are reached is as on this host.
        if text.contains("Acquire::") {
            make.arg(format!("--aptopt={}", path.display()));
        }
    }
    make.arg(name).arg(root);
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    make.args(sources.into_iter().filter(|path| fs::metadata(path).is_ok_and(|it| it.len() > 0)).take(1));
    progress::run("making a minimal Debian (once)", &mut make)
}

/// Says how far it came.
fn tell(out: &Path) -> Result<()> {
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default();
    for step in read("steps").lines() {
        progress::note(&format!("ok: {step}"));
    }
    let verdict = read("verdict");
    for line in read("memory").lines() {
        let [unit, rss, own] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        progress::note(&format!("{unit}: {rss} KiB resident, {own} KiB of its own"));
    }
    let ready: Vec<String> = read("ready").lines().map(str::to_owned).collect();
    if !ready.is_empty() {
        progress::note(&format!("from start to READY: {} ms", ready.join(", ")));
    }
    if let Some(points) = read("security").lines().next() {
        progress::note(&format!("systemd-analyze security agent-loop.service: {points}"));
    }
    if verdict.trim() != "passed" {
        let why = if verdict.is_empty() { "it did not come to its end" } else { verdict.trim() };
        bail!("the life of the service: {why}; {}", out.join("log").display());
    }
    progress::say("the life of the service: passed");
    Ok(())
}
