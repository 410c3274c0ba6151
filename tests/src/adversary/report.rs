//! What a process was given, as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use nix::unistd::{getgroups, getpgid, getresgid, getresuid, getsid, tcgetpgrp};
use serde_json::{Value, json};

/// Writes the report to `file`, or to the standard output.
pub(super) fn report(file: Option<&Path>) -> io::Result<u8> {
    let text = serde_json::to_string_pretty(&collect()?)?;
    match file {
        Some(file) => fs::write(file, text)?,
        None => writeln!(io::stdout(), "{text}")?,
    }
    Ok(0)
}

fn collect() -> io::Result<Value> {
    let status = fields(&fs::read_to_string("/proc/self/status")?);
    let uid = getresuid()?;
    let gid = getresgid()?;
    let terminal = fs::File::open("/dev/tty").ok();
    Ok(json!({
        "fds": descriptors()?,
        "tty": [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()],
        "env": std::env::vars_os()
            .map(|(key, value)| (key.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect::<BTreeMap<_, _>>(),
        "argv": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "cwd": std::env::current_dir()?,
        "cgroup": fs::read_to_string("/proc/self/cgroup")?,
        "pid": std::process::id(),
        "pgid": getpgid(None)?.as_raw(),
        "sid": getsid(None)?.as_raw(),
        "tpgid": terminal.and_then(|tty| tcgetpgrp(tty).ok()).map(nix::unistd::Pid::as_raw),
        "uid": [uid.real.as_raw(), uid.effective.as_raw(), uid.saved.as_raw()],
        "gid": [gid.real.as_raw(), gid.effective.as_raw(), gid.saved.as_raw()],
        "groups": getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect::<Vec<_>>(),
        "umask": status.get("Umask"),
        "no_new_privs": status.get("NoNewPrivs"),
        "signals": select(&status, &["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"]),
        "caps": select(&status, &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]),
    }))
}

/// The open descriptors and what they lead to, but the one that reads the directory.
fn descriptors() -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        if let Ok(target) = fs::read_link(entry.path()) {
            found.insert(entry.file_name().to_string_lossy().into_owned(), target.to_string_lossy().into_owned());
        }
    }
    let own = format!("/proc/{}/fd", std::process::id());
    found.retain(|_, target| *target != own);
    Ok(found)
}

fn fields(status: &str) -> BTreeMap<String, String> {
    status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

fn select(fields: &BTreeMap<String, String>, names: &[&str]) -> BTreeMap<String, String> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), fields.get(*name)?.clone()))).collect()
}
