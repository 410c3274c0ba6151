//! The initramfs: busybox, an init, agent-loop, the tests, and what they run, at the paths that they have here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::debian::Tools;
use super::{home, verdict};
use crate::{place, progress};

/// Programs of this machine that tests start; busybox stands in for others.
const PROGRAMS: [&str; 46] = [
    "bash", "basename", "cat", "chmod", "chown", "cp", "cut", "dash", "date", "dd", "dirname", "echo", "env", "false",
    "find", "getcap", "grep", "head", "id", "ln", "ls", "mkdir", "mkfifo", "mv", "nice", "nohup", "nsenter", "printf",
    "prlimit", "rm", "sed", "seq", "setpriv", "setsid", "sleep", "sort", "stat", "tail", "tee", "timeout", "touch",
    "tr", "true", "unshare", "wc", "yes",
];

/// Tests of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    program: String,
    part: Option<String>,
}

impl Test {
    /// `PROGRAM` or `PROGRAM:PART`.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((program, part)) => Self { program: program.to_owned(), part: Some(part.to_owned()) },
            None => Self { program: text.to_owned(), part: None },
        }
    }
}

/// Builds the tests and packs them; returns the initramfs.
pub(super) fn build(tools: &Tools, tests: &[Test]) -> Result<PathBuf> {
    let built = cargo(tests)?;
    let root = home().join("root");
    drop(fs::remove_dir_all(&root));
    let mut image = Image { root, seen: BTreeSet::new() };
    for dir in ["usr/bin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "run", "root", "etc"] {
        image.dir(dir, 0o755)?;
    }
    image.dir("tmp", 0o1777)?;
    for name in ["bin", "lib", "lib64"] {
        image.link(name, &format!("usr/{name}"))?;
    }
    image.link("sbin", "usr/bin")?;
    image.link("usr/sbin", "bin")?;
    image.text("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n", 0o644)?;
    image.text("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    image.text("etc/nsswitch.conf", "passwd: files\ngroup: files\n", 0o644)?;
    image.text("etc/machine-id", "00000000000000000000000000000001\n", 0o644)?;
    image.copy(&tools.busybox, Path::new("/usr/bin/busybox"))?;
    for program in PROGRAMS {
        if let Some(path) = place::which(program) {
            image.program(&path, Path::new("/usr/bin").join(program).as_path())?;
        }
    }
    image.link("usr/bin/sh", "dash")?;
    for program in &built {
        image.program(&program.path, &program.path)?;
        image.stripped(&program.path)?;
    }
    for value in [16, 17] {
        let path = format!("usr/bin/verdict-{value}");
        fs::write(image.root.join(&path), verdict::program(value)).context("writing the verdict's program")?;
        fs::set_permissions(image.root.join(&path), fs::Permissions::from_mode(0o755)).context("setting a mode")?;
    }
    image.text("init", &init(tests, &built)?, 0o755)?;
    image.pack(&tools.busybox)
}

/// A program that cargo built.
struct Built {
    name: String,
    is_test: bool,
    path: PathBuf,
}

fn cargo(tests: &[Test]) -> Result<Vec<Built>> {
    let mut build = place::host_cargo();
    // All default members, as `cargo xtask test` builds them: what they depend on is not built again.
    build.args(["build", "--bins"]);
    let programs: BTreeSet<&str> = tests.iter().map(|test| test.program.as_str()).collect();
    for program in programs {
        build.args(["--test", program]);
    }
    progress::run("build of the tests", &mut build)?;
    // What is built already is told at once.
    let told = build
        .args(["--message-format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .output()
        .context("starting cargo")?;
    let messages = String::from_utf8_lossy(&told.stdout).into_owned();
    Ok(messages.lines().filter_map(|line| built(&serde_json::from_str(line).ok()?)).collect())
}

fn built(message: &Value) -> Option<Built> {
    let path = PathBuf::from(message["executable"].as_str()?);
    let name = message["target"]["name"].as_str()?.to_owned();
    Some(Built { name, is_test: message["target"]["kind"][0] == "test", path })
}

/// The script that the kernel starts: what it says is read by [`super::machine`].
fn init(tests: &[Test], built: &[Built]) -> Result<String> {
    use std::fmt::Write;
    let find = |name: &str, is_test: bool| {
        let found = built.iter().find(|it| it.name == name && it.is_test == is_test);
        found.map(|it| it.path.display().to_string()).with_context(|| format!("cargo built no {name}"))
    };
    let agent_loop = find("agent-loop", false)?;
    let mut text = String::from(HEAD);
    let _ = writeln!(text, "export AGENT_LOOP_BIN={agent_loop}");
    let _ = writeln!(text, "step doctor-says {agent_loop} doctor");
    let _ = writeln!(text, "must exec {agent_loop} exec -- true");
    for test in tests {
        let program = find(&test.program, true)?;
        let part = test.part.as_deref().unwrap_or_default();
        let _ = writeln!(text, "must {} {program} --test-threads=2 {part}", test.program);
    }
    text.push_str(TAIL);
    Ok(text)
}

const HEAD: &str = r#"#!/bin/busybox sh
# The verdict goes to a port of QEMU: 16 is good, 17 is bad, and neither is what a panic or QEMU itself would say.
export PATH=/usr/bin HOME=/root TERM=dumb NO_COLOR=1 RUST_BACKTRACE=0 AGENT_LOOP_SKIPS=/tmp/skips
busybox --install -s /usr/bin 2>/dev/null
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
busybox mount -t tmpfs tmpfs /run
busybox mount -t tracefs tracefs /sys/kernel/tracing
busybox mount -t bpf bpf /sys/fs/bpf
word() { busybox grep -qw "$1" /proc/cmdline; }
word agent_loop.without=cgroup2 || busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
word agent_loop.without=bpffs && busybox umount /sys/fs/bpf
word agent_loop.without=btf && busybox mount -o bind /dev/null /sys/kernel/btf/vmlinux
busybox ip link set lo up
[ -e /dev/fd ] || busybox ln -s /proc/self/fd /dev/fd
[ -e /dev/stdin ] || busybox ln -s /proc/self/fd/0 /dev/stdin
[ -e /dev/stdout ] || busybox ln -s /proc/self/fd/1 /dev/stdout
[ -e /dev/stderr ] || busybox ln -s /proc/self/fd/2 /dev/stderr
cd /root
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
good=16
exec </dev/null
# Before Linux 5.11 the maps of all processes together count against it: agent-loop raises its own, the tests' probe does not.
ulimit -l unlimited
echo "VM RELEASE $(uname -r)"
echo "VM VERSION $(cat /proc/version)"
echo "VM PREEMPT $(dmesg | sed -n 's/.*Dynamic Preempt: *//p')"
echo "VM CONTROLLERS $(cat /sys/fs/cgroup/cgroup.subtree_control)"
step() {
    name=$1; shift
    read -r begin rest < /proc/uptime
    echo "VM STEP $name"
    timeout 1500 "$@" > /tmp/said 2>&1
    code=$?
    cat /tmp/said
    read -r end rest < /proc/uptime
    echo "VM END $name code $code after $((${end%.*} - ${begin%.*})) s"
    return $code
}
must() { step "$@" || good=17; }
"#;

const TAIL: &str = r"
[ -e /tmp/skips ] && sort -u /tmp/skips | sed 's/^/VM /'
dmesg 2>/dev/null | grep -E 'BUG|WARNING|Oops' | sed 's/^/VM KERNEL /'
echo VM VERDICT $good
sync
# The console is slow: what was said is out before the machine is.
sleep 1
/usr/bin/verdict-$good
echo VM NO VERDICT
sleep 1
poweroff -f
";

/// A directory that becomes the initramfs.
struct Image {
    root: PathBuf,
    /// Libraries that are in it.
    seen: BTreeSet<PathBuf>,
}

impl Image {
    /// Where a path of the machine lies here; /lib and its like are links.
    fn at(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix("/").unwrap_or(path);
        let merged = ["bin", "lib", "lib64", "sbin"].iter().any(|name| below.starts_with(name));
        if merged { self.root.join("usr").join(below) } else { self.root.join(below) }
    }

    fn dir(&self, path: &str, mode: u32) -> Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("setting a mode")
    }

    fn link(&self, path: &str, to: &str) -> Result<()> {
        symlink(to, self.root.join(path)).with_context(|| format!("linking {path}"))
    }

    fn text(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("setting a mode")
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let to = self.at(to);
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Copies a program and the libraries that `ldd` names.
    fn program(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.copy(from, to)?;
        let output = Command::new("ldd").arg(from).output().context("starting ldd")?;
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            if self.seen.insert(library.clone()) {
                self.copy(&library, &library)?;
            }
        }
        Ok(())
    }

    /// Takes what only a debugger reads out of a program: a tenth is left.
    fn stripped(&self, path: &Path) -> Result<()> {
        let status = Command::new("strip").arg(self.at(path)).status().context("starting strip, of binutils")?;
        if !status.success() {
            bail!("strip of {}: {status}", path.display());
        }
        Ok(())
    }

    fn pack(&self, busybox: &Path) -> Result<PathBuf> {
        let archive = pack(&self.root, busybox, "initramfs")?;
        let size = fs::metadata(&archive).context("reading the initramfs")?.len();
        progress::note(&format!("{} MB in target/vm/initramfs", size / 1_000_000));
        Ok(archive)
    }
}

/// An initramfs whose init says at once that all is well: what boots it, boots.
pub(super) fn trial(tools: &Tools) -> Result<PathBuf> {
    let root = home().join("trial-root");
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    fs::write(root.join("init"), verdict::program(16)).context("writing the verdict's program")?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).context("setting a mode")?;
    pack(&root, &tools.busybox, "trial")
}

/// Packs a directory, which is removed, to `target/vm/NAME`.
fn pack(root: &Path, busybox: &Path, name: &str) -> Result<PathBuf> {
    let archive = home().join(name);
    let mut pack = Command::new("sh");
    pack.args(["-c", "cd \"$0\" && find . | \"$1\" cpio -o -H newc > \"$2\""]);
    pack.arg(root).arg(busybox).arg(&archive);
    progress::run(name, &mut pack)?;
    fs::remove_dir_all(root).context("removing what was packed")?;
    Ok(archive)
}

/// The files that `ldd` names.
fn libraries(said: &str) -> Vec<PathBuf> {
    let paths = said.lines().filter_map(|line| {
        let line = line.trim();
        line.split_once("=> ").map_or(line, |(_, path)| path).split(" (").next()
    });
    paths.filter(|path| path.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_own_is_not() {
        let said = "\tlinux-vdso.so.1 (0x7ff)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7e)\n";
        assert_eq!(libraries(said), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
        assert_eq!(libraries("\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_test_is_a_program_and_maybe_a_part() {
        assert_eq!(Test::parse("probes"), Test { program: "probes".into(), part: None });
        assert_eq!(Test::parse("serve:limits"), Test { program: "serve".into(), part: Some("limits".into()) });
    }
}
