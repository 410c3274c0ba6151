//! Cgroups below the own one, in which processes hide.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Stage;
use crate::harness::cgroup;
use crate::oracle::Life;
use crate::sys;

/// Children in `nest-a`, `nest-a/nest-b` and `nest-c`, or in the threaded `nest-t`, below the own cgroup.
pub(super) fn nested(stage: &Stage, freeze: bool, threaded: bool) -> io::Result<u8> {
    let own = cgroup::own().ok_or_else(|| io::Error::other("no cgroup v2 here"))?;
    if own == cgroup::mount().unwrap_or_default() {
        return Err(io::Error::other("will not make cgroups in the root"));
    }
    if threaded {
        // Next to populated domain cgroups the kernel allows no threaded one.
        let path = own.join("nest-t");
        fs::create_dir(&path)?;
        fs::write(path.join("cgroup.type"), "threaded")?;
        child_in(stage, &path, "cgroup.threads")?;
    } else {
        for name in ["nest-a", "nest-a/nest-b", "nest-c"] {
            child_in(stage, &own.join(name), "cgroup.procs")?;
        }
    }
    if freeze {
        fs::write(own.join("nest-a/cgroup.freeze"), "1")?;
    }
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

/// A child in the deepest of a line of cgroups, beside many others.
pub(super) fn many(stage: &Stage, width: u16, depth: u16) -> io::Result<u8> {
    let own = cgroup::own().ok_or_else(|| io::Error::other("no cgroup v2 here"))?;
    if own == cgroup::mount().unwrap_or_default() {
        return Err(io::Error::other("will not make cgroups in the root"));
    }
    let mut last = own.clone();
    for index in 0..width {
        last = own.join(format!("many-{index}"));
        fs::create_dir(&last)?;
    }
    for _ in 0..depth {
        last.push("n");
        fs::create_dir(&last)?;
    }
    child_in(stage, &last, "cgroup.procs")?;
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

/// How many cgroups there are to hop between, and after how many hops a successor is forked.
const HOPS: usize = 8;
/// How many lives one line of hoppers has.
const LIVES: usize = 50_000;

/// Children that are never long in one cgroup, nor under one number.
pub(super) fn hopper(stage: &Stage, count: u16) -> io::Result<u8> {
    let own = cgroup::own().ok_or_else(|| io::Error::other("no cgroup v2 here"))?;
    if own == cgroup::mount().unwrap_or_default() {
        return Err(io::Error::other("will not make cgroups in the root"));
    }
    let places: Vec<_> = (0..HOPS).map(|hop| own.join(format!("hop-{hop}"))).collect();
    for place in &places {
        fs::create_dir(place)?;
    }
    for start in 0..usize::from(count) {
        let places = places.clone();
        stage.fork("hopper", || hop(&places, start))?;
    }
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

/// Children that are never long under one number.
pub(super) fn phoenix(stage: &Stage, count: u16) -> io::Result<u8> {
    for _ in 0..count {
        stage.fork("phoenix", || hop(&[], 0))?;
    }
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

fn hop(places: &[std::path::PathBuf], start: usize) -> io::Result<u8> {
    for life in 0..LIVES {
        for place in places.iter().cycle().skip(start + life).take(HOPS) {
            fs::write(place.join("cgroup.procs"), "0")?;
        }
        // The parent goes, its child takes over in the loop: one life at a time.
        if sys::fork_on()? {
            return Ok(0);
        }
    }
    Ok(0)
}

/// Forks a child that moves itself to `path`, and waits until it is there.
fn child_in(stage: &Stage, path: &Path, file: &str) -> io::Result<()> {
    if !path.exists() {
        fs::create_dir(path)?;
    }
    stage.fork("nested", || {
        fs::write(path.join(file), "0")?;
        stage.live_on();
        Ok(0)
    })?;
    while fs::read_to_string(path.join(file))?.trim().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A child that is born in another cgroup.
pub(super) fn born_in(stage: &Stage, dir: &Path) -> io::Result<u8> {
    let dir = fs::File::open(dir)?;
    let after_ns = sys::boot_ns();
    let child = sys::clone_at(sys::Stub::Exit(7), sys::Place { cgroup: Some(dir.as_fd()), ..sys::Place::default() })?;
    let life = Life {
        pid: child.pid,
        parent: super::me(),
        role: "born in".to_owned(),
        after_ns,
        before_ns: sys::boot_ns(),
        status: None,
    };
    stage.wait_for(life)?;
    Ok(0)
}
