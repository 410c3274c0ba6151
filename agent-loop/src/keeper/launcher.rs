//! What a launched process does to itself before it becomes the command: the table in order, then execve.
//!
//! It runs as the hidden subcommand `launcher`, a fresh image of this program with one thread and an empty
//! environment.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource as Kind, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Gid, Uid};

use super::birth::report;
use super::launch::{Become, LaunchSpec, Resource, Session, Stdio, Step, StepFailed, User, Wire};

/// What execvp uses without a PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The launcher: never returns. `args` are those after the subcommand's name: two numbers of descriptors.
pub fn launcher_main(args: impl IntoIterator<Item = OsString>) -> ! {
    let mut fds = args.into_iter().map(|arg| inherited(&arg));
    let (Some(Some(spec)), Some(Some(errors))) = (fds.next(), fds.next()) else {
        eprintln!("agent-loop: launcher is for agent-loop's own use");
        std::process::exit(2);
    };
    let mut errors = File::from(errors);
    let Err(failed) = become_command(File::from(spec), &mut errors);
    // Nobody reads it if the keeper died; there is nobody else to tell.
    if is_read(&errors) {
        let _ = errors.write_all(&report(failed.step, failed.errno));
    }
    std::process::exit(i32::from(failed.shell_code().unwrap_or(125)));
}

/// Takes over a descriptor that was inherited under this number, and closes it on execve.
pub(super) fn inherited(arg: &OsStr) -> Option<OwnedFd> {
    let number: RawFd = arg.to_str()?.parse().ok().filter(|&fd| fd > 2)?;
    // SAFETY: fcntl with integers: it fails if the number is not open.
    let open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: it is open, and this process, just executed, has no other owner of inherited descriptors.
    (open == 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Names the step that an error belongs to.
fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> StepFailed {
    move |error| StepFailed { step, errno: error.into().raw_os_error().unwrap_or(libc::EINVAL) }
}

fn become_command(spec: File, errors: &mut File) -> Result<std::convert::Infallible, StepFailed> {
    let wire: Wire = serde_json::from_reader(io::BufReader::new(spec))
        .map_err(|_| StepFailed { step: Step::Spec, errno: libc::EINVAL })?;
    let mut spec = wire.spec;
    // A signal meant for the command waits until the command can answer it its own way.
    let _ = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(at(Step::Signals))?;
    session(spec.session)?;
    stdio(spec.stdio).map_err(at(Step::Stdio))?;
    close_all_but(&mut [errors.as_raw_fd()]).map_err(at(Step::CloseFds))?;
    // Before the limits of the command are set, and with root's rights: it reads what the host's user database is.
    let user = spec.user.as_ref().map(|user| who(user, &mut spec.no_new_privs)).transpose()?;
    if let Some(umask) = spec.umask {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    }
    for limit in &spec.rlimits {
        setrlimit(kind(limit.resource), limit.soft, limit.hard).map_err(at(Step::Rlimits))?;
    }
    if let Some(user) = &user {
        drop_to(user, spec.no_new_privs)?;
    }
    if spec.no_new_privs {
        nix::sys::prctl::set_no_new_privs().map_err(at(Step::NoNewPrivs))?;
    }
    if let Some(cwd) = &spec.cwd {
        std::env::set_current_dir(cwd).map_err(at(Step::Cwd))?;
    }
    if let Some(parent) = wire.die_with {
        die_with(parent)?;
    }
    let commands = commands(&spec);
    let strings = |list: &mut dyn Iterator<Item = Vec<u8>>| list.map(CString::new).collect::<Result<Vec<_>, _>>();
    let argv = strings(&mut spec.argv.iter().map(|arg| arg.as_bytes().to_vec()));
    let env = strings(&mut spec.env.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()));
    let (Ok(argv), Ok(env)) = (argv, env) else {
        return Err(StepFailed { step: Step::Exec, errno: libc::EINVAL });
    };
    signals(&spec)?;
    // SIGPIPE would end us now: a keeper that was replaced while we were frozen hears nothing, and we go on.
    if is_read(errors) {
        errors.write_all(&report(Step::Exec, 0)).map_err(at(Step::Exec))?;
    }
    Err(StepFailed { step: Step::Exec, errno: execute(&commands, &argv, &env) as i32 })
}

/// Whether the reading end of the pipe is still open anywhere.
fn is_read(errors: &File) -> bool {
    let mut fds = [PollFd::new(errors.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    let [fd] = fds;
    polled.is_ok() && !fd.any().unwrap_or(false)
}

fn session(session: Session) -> Result<(), StepFailed> {
    match session {
        Session::New => drop(nix::unistd::setsid().map_err(at(Step::Session))?),
        Session::Callers => {}
        Session::OwnGroup { foreground } => {
            let own = nix::unistd::Pid::from_raw(0);
            let caller = nix::unistd::getpgrp();
            nix::unistd::setpgid(own, own).map_err(at(Step::Session))?;
            // No terminal at all is no failure.
            if foreground && let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") {
                // Only what the caller has can be passed on: a job in the background stays there.
                if nix::unistd::tcgetpgrp(&terminal) == Ok(caller) {
                    // SIGTTOU is blocked here, else this would stop us.
                    nix::unistd::tcsetpgrp(&terminal, nix::unistd::getpgrp()).map_err(at(Step::Terminal))?;
                }
            }
        }
    }
    Ok(())
}

fn stdio(choices: [Stdio; 3]) -> io::Result<()> {
    // All copies first: a source may itself be 0, 1 or 2 and must not be overwritten before it is read.
    let mut sources = Vec::new();
    for (choice, target) in choices.into_iter().zip(0..) {
        let source = match choice {
            Stdio::Inherit => continue,
            Stdio::Null => File::options().read(true).write(true).open("/dev/null")?.into(),
            Stdio::Fd(fd) => copy(fd, 3)?,
        };
        sources.push((source, target));
    }
    for (source, target) in sources {
        // SAFETY: dup2 on an open descriptor and on one of 0, 1, 2, which nothing here owns.
        Errno::result(unsafe { libc::dup2(source.as_raw_fd(), target) })?;
    }
    Ok(())
}

/// Copies a descriptor to a number not below `lowest`, closed on execve.
fn copy(fd: RawFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with integers.
    let copy = Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Closes everything but 0, 1, 2 and the error pipe, which execve closes.
pub(super) fn close_all_but(keep: &mut [RawFd]) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut from = 3;
    for &fd in keep.iter() {
        close_range(from, fd - 1)?;
        from = fd + 1;
    }
    close_range(from, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    // SAFETY: close_range with integers; the callers own nothing that is still used in this range.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

fn kind(resource: Resource) -> Kind {
    match resource {
        Resource::AddressSpace => Kind::RLIMIT_AS,
        Resource::Core => Kind::RLIMIT_CORE,
        Resource::Cpu => Kind::RLIMIT_CPU,
        Resource::FileSize => Kind::RLIMIT_FSIZE,
        Resource::OpenFiles => Kind::RLIMIT_NOFILE,
        Resource::Processes => Kind::RLIMIT_NPROC,
    }
}

/// The numbers of who it becomes; whoever is not root never gains a right.
fn who(user: &Become, no_new_privs: &mut bool) -> Result<User, StepFailed> {
    let (name, may_be_root) = match user {
        Become::User(user) => return Ok(user.clone()),
        Become::Account { name, may_be_root } => (name, *may_be_root),
    };
    let found = User::find(name)
        .map_err(|error| StepFailed { step: Step::Account, errno: error.raw_os_error().unwrap_or(libc::ENOENT) })?;
    if found.uid == 0 && !may_be_root {
        return Err(StepFailed { step: Step::Account, errno: libc::EPERM });
    }
    *no_new_privs = found.uid != 0;
    Ok(found)
}

/// No capability comes back by uid 0, none is kept over a change of uid, none becomes ambient; all of it locked.
const LOCKED: libc::c_int = libc::SECBIT_NOROOT
    | libc::SECBIT_NOROOT_LOCKED
    | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
    | libc::SECBIT_KEEP_CAPS_LOCKED
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

/// Becomes the user, in the order in which each step still has the right it needs, and checks that it worked.
fn drop_to(user: &User, no_new_privs: bool) -> Result<(), StepFailed> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).map_err(at(Step::Groups))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(at(Step::Gid))?;
    if !uid.is_root() {
        empty_bounding_set()?;
        // Where a setuid program may be executed, uid 0 has to mean what it means.
        if no_new_privs {
            prctl(libc::PR_SET_SECUREBITS, LOCKED, 0).map_err(at(Step::SecureBits))?;
        }
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0).map_err(at(Step::Capabilities))?;
    }
    nix::unistd::setresuid(uid, uid, uid).map_err(at(Step::Uid))?;
    if !uid.is_root() {
        no_capabilities().map_err(at(Step::Capabilities))?;
    }
    let now = nix::unistd::getresuid().map_err(at(Step::Rights))?;
    let group = nix::unistd::getresgid().map_err(at(Step::Rights))?;
    let became = [now.real, now.effective, now.saved] == [uid; 3]
        && [group.real, group.effective, group.saved] == [gid; 3]
        // The way back must be closed.
        && (uid.is_root() || nix::unistd::setuid(Uid::from_raw(0)).is_err());
    if became { Ok(()) } else { Err(StepFailed { step: Step::Rights, errno: libc::EPERM }) }
}

fn empty_bounding_set() -> Result<(), StepFailed> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::EINVAL) if capability > 0 => break,
            Err(errno) => return Err(at(Step::BoundingSet)(errno)),
        }
    }
    Ok(())
}

/// `prctl` with integers.
fn prctl(option: libc::c_int, second: libc::c_int, third: libc::c_int) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    let [second, third] = [second, third].map(|value| libc::c_ulong::from(value.unsigned_abs()));
    // SAFETY: the options used here take integers only.
    Errno::result(unsafe { libc::prctl(option, second, third, zero, zero) }).map(drop)
}

/// Empties the effective, permitted and inheritable sets: a change of uid leaves the last one as it was.
fn no_capabilities() -> Result<(), Errno> {
    /// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    let sets = [0u32; 6];
    // SAFETY: header and sets have the layout of version 3 and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// After the change of user, which clears it.
fn die_with(parent: u32) -> Result<(), StepFailed> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL).map_err(at(Step::Parent))?;
    if nix::unistd::getppid().as_raw().unsigned_abs() == parent {
        Ok(())
    } else {
        Err(StepFailed { step: Step::Parent, errno: libc::ESRCH })
    }
}

/// The files to try, as execvp would.
fn commands(spec: &LaunchSpec) -> Vec<CString> {
    let command = spec.argv.first().map_or(OsStr::new(""), OsString::as_os_str);
    let candidates = if command.as_bytes().contains(&b'/') {
        vec![command.to_owned()]
    } else {
        let path = spec.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_bytes());
        // An empty element is the working directory.
        let directories = path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':');
        directories.map(|dir| Path::new(OsStr::from_bytes(dir)).join(command).into_os_string()).collect()
    };
    candidates.into_iter().filter_map(|file| CString::new(file.into_vec()).ok()).collect()
}

/// Every disposition as asked for, then no signal blocked: one that waited takes effect now.
fn signals(spec: &LaunchSpec) -> Result<(), StepFailed> {
    for signal in 1..=64u8 {
        let ignore = spec.ignored.contains(&signal);
        // The kernel's own structure begins with the handler; the rest is flags and a mask, and zero.
        let mut action = [0usize; 8];
        action[0] = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
        let (none, mask_size) = (std::ptr::null_mut::<usize>(), size_of::<u64>());
        // Not the C library's call: that leaves 32 and 33 alone, which a caller may have ignored.
        // SAFETY: `action` is larger than the kernel's structure, outlives the call and holds no function of ours.
        let done =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, i32::from(signal), action.as_ptr(), none, mask_size) };
        match Errno::result(done) {
            // SIGKILL and SIGSTOP have no disposition.
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(at(Step::Signals)(errno)),
        }
    }
    SigSet::empty().thread_set_mask().map_err(at(Step::Signals))
}

/// Tries each file; the error is the one that execvp would give.
fn execute(commands: &[CString], argv: &[CString], env: &[CString]) -> Errno {
    // What execvp passes over on its way through PATH.
    let not_there = [Errno::ENOENT, Errno::ENOTDIR, Errno::ESTALE, Errno::ENODEV, Errno::ETIMEDOUT];
    let mut answer = Errno::ENOENT;
    for command in commands {
        let Err(errno) = nix::unistd::execve(command, argv, env);
        if errno == Errno::EACCES {
            answer = errno;
        } else if commands.len() == 1 || !not_there.contains(&errno) {
            return errno;
        }
    }
    answer
}
