//! Others that keep jobs: how long each takes to notice a death, and what it tells of a job that ended with code 7 while
//! it was itself dead by SIGKILL.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::host::Host;
use super::spread::Spread;
use super::table::Table;
use super::tool::Running;
use crate::{place, progress};

const PUEUE: &str = "4.0.4";
const SUPERVISOR: &str = "4.3.0";
/// The longest that anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that keeps jobs.
trait Supervisor {
    /// Starts it and waits until it can be asked.
    fn serve(&self) -> Result<Running>;
    /// Has it run this script.
    fn start(&self, script: &str) -> Result<String>;
    /// The second of the day at which it noticed the end of a job.
    fn noticed(&self, job: &str) -> Result<f64>;
    /// What it tells of a job.
    fn tells(&self, job: &str) -> Result<String>;
}

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let dir = bench.fresh("supervisors")?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).context("opening the scratch directory")?;
    let mut table = Table::new("others that keep jobs", &["who", "ms to notice a death", "told after its own SIGKILL"]);
    let mut figures = json!({});
    let host = Host::make(bench, "supervisors-host", 4)?;
    let pueue = pueue(&dir)?;
    let supervisor = supervisor(&dir)?;
    let all: [(String, &dyn Supervisor); 3] = [
        ("agent-loop".to_owned(), &host),
        (format!("pueue {PUEUE}"), &pueue),
        (format!("supervisord {SUPERVISOR}"), &supervisor),
    ];
    for (name, it) in all {
        progress::note(&name);
        let (noticed, told) = one(it, &dir, bench.rounds).with_context(|| name.clone())?;
        figures[&name] = json!({ "notice_ms": noticed.json(), "told": told });
        table.row([name, noticed.show(1), told]);
    }
    table.note("from the job's last act, a line written by `date`, to the time that its keeper put on its end");
    table.note("after the SIGKILL its job ended with code 7, then it was started again and asked");
    Ok((table, figures))
}

fn one(it: &dyn Supervisor, dir: &Path, rounds: u32) -> Result<(Spread, String)> {
    let mark = dir.join("last");
    let script = |seconds: &str| format!("sleep {seconds}; date -u +%H:%M:%S.%N > {}; exit 7", mark.display());
    let mut spread = Spread::empty();
    let running = it.serve()?;
    for round in 0..rounds {
        let _ = fs::remove_file(&mark);
        // Nobody's period is hit each time at the same place.
        let job = it.start(&script(&format!("0.{}", 31 + 17 * round % 60)))?;
        let last = written(&mark)?;
        let noticed = it.noticed(&job)?;
        spread.push((noticed - last) * 1e3);
    }
    let _ = fs::remove_file(&mark);
    let job = it.start(&script("1.5"))?;
    thread::sleep(Duration::from_millis(500));
    drop(running);
    written(&mark)?;
    // The shell's own end comes after what it wrote.
    thread::sleep(Duration::from_millis(200));
    let _running = it.serve()?;
    let told = it.tells(&job)?;
    Ok((spread, told))
}

/// What a job wrote at last, once it did.
fn written(mark: &Path) -> Result<f64> {
    patiently("a job to end", || second_of_day(&fs::read_to_string(mark).ok().filter(|text| text.ends_with('\n'))?))
}

fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("waited {PATIENCE:?} for {what}")
}

/// Reads the first `HH:MM:SS` with a fraction after a point or comma, which all of them write.
fn second_of_day(text: &str) -> Option<f64> {
    let at = text.match_indices(':').map(|(at, _)| at).find(|&at| text.get(at + 3..at + 4) == Some(":"))?;
    let part = |from: usize| text.get(from..from + 2)?.parse::<f64>().ok();
    let rest = text.get(at + 6..)?;
    let digits: String = rest.strip_prefix(['.', ','])?.chars().take_while(char::is_ascii_digit).collect();
    let fraction: f64 = format!("0.{digits}").parse().ok()?;
    Some(part(at.checked_sub(2)?)? * 3_600.0 + part(at + 1)? * 60.0 + part(at + 4)? + fraction)
}

impl Supervisor for Host {
    fn serve(&self) -> Result<Running> {
        Self::serve(self)
    }

    fn start(&self, script: &str) -> Result<String> {
        Self::start(self, &["sh", "-c", script])
    }

    fn noticed(&self, job: &str) -> Result<f64> {
        let line = self.event(job, "run.exit")?;
        line["time"].as_str().and_then(second_of_day).context("a line without a time")
    }

    fn tells(&self, job: &str) -> Result<String> {
        let run = patiently("the end of a run", || {
            let run: Value = serde_json::from_str(&self.ask(&["status", job, "--json"]).ok()?).ok()?;
            (run["state"] == "ended").then_some(run)
        })?;
        Ok(format!("{}, code {}", run["state"].as_str().unwrap_or("?"), run["code"]))
    }
}

/// pueue in a directory of its own.
struct Pueue {
    bin: PathBuf,
    dir: PathBuf,
}

fn pueue(dir: &Path) -> Result<Pueue> {
    let home = place::root().join("target/tools");
    if !home.join("bin/pueued").is_file() {
        progress::say("installing pueue (once)");
        let mut install = place::clean_cargo();
        install.args(["install", "--locked", "pueue", "--version", PUEUE, "--root"]).arg(&home);
        progress::run(&format!("cargo install pueue {PUEUE}"), &mut install)?;
    }
    let pueue = Pueue { bin: home.join("bin"), dir: dir.join("pueue") };
    for part in ["state", "runtime"] {
        fs::create_dir_all(pueue.dir.join(part)).context("making a directory")?;
    }
    let text = format!(
        "client: {{}}\ndaemon: {{}}\nshared:\n  pueue_directory: {0}/state\n  runtime_directory: {0}/runtime\n  \
         use_unix_socket: true\n  unix_socket_path: {0}/socket\n",
        pueue.dir.display()
    );
    fs::write(pueue.dir.join("config.yml"), text).context("writing a configuration")?;
    Ok(pueue)
}

impl Pueue {
    fn ask(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.bin.join("pueue"));
        command.arg("-c").arg(self.dir.join("config.yml")).args(args).env("TZ", "UTC");
        said(&mut command)
    }

    fn status(&self, job: &str) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.ask(&["status", "--json"])?)?;
        Ok(status["tasks"][job]["status"]["Done"].clone())
    }

    fn done(&self, job: &str) -> Result<Value> {
        patiently("pueue to tell of an end", || self.status(job).ok().filter(|done| !done.is_null()))
    }
}

impl Supervisor for Pueue {
    fn serve(&self) -> Result<Running> {
        let mut command = Command::new(self.bin.join("pueued"));
        command.arg("-c").arg(self.dir.join("config.yml")).env("TZ", "UTC");
        let log = File::create(self.dir.join("log")).context("creating a scratch file")?;
        let running = Running::start(command.stdout(log.try_clone()?).stderr(log))?;
        patiently("pueued", || self.ask(&["status"]).ok())?;
        Ok(running)
    }

    fn start(&self, script: &str) -> Result<String> {
        Ok(self.ask(&["add", "--print-task-id", "--", script])?.trim().to_owned())
    }

    fn noticed(&self, job: &str) -> Result<f64> {
        self.done(job)?["end"].as_str().and_then(second_of_day).context("an end without a time")
    }

    fn tells(&self, job: &str) -> Result<String> {
        let done = self.done(job)?;
        Ok(done["result"].as_str().map_or_else(|| done["result"].to_string(), str::to_owned))
    }
}

/// supervisord in a directory of its own. Its jobs are in its configuration: there is one, which runs what a file says.
struct Supervisord {
    bin: PathBuf,
    dir: PathBuf,
}

fn supervisor(dir: &Path) -> Result<Supervisord> {
    let home = place::root().join("target/tools/supervisor");
    if !home.join("bin/supervisord").is_file() {
        progress::say("installing supervisor (once)");
        progress::run("python3 -m venv", Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        let mut install = Command::new(home.join("bin/pip"));
        install.args(["install", "--quiet", &format!("supervisor=={SUPERVISOR}")]);
        progress::run(&format!("pip install supervisor {SUPERVISOR}"), &mut install)?;
    }
    let it = Supervisord { bin: home.join("bin"), dir: dir.join("supervisord") };
    fs::create_dir_all(&it.dir).context("making a directory")?;
    let text = format!(
        "[supervisord]\nlogfile={0}/log\npidfile={0}/pid\nnodaemon=true\nuser=root\n[unix_http_server]\nfile={0}/socket\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{0}/socket\n[program:job]\ncommand=/bin/sh {0}/script\nautostart=false\n\
         autorestart=false\nstartsecs=0\n",
        it.dir.display()
    );
    fs::write(it.dir.join("config"), text).context("writing a configuration")?;
    Ok(it)
}

impl Supervisord {
    fn ask(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.bin.join("supervisorctl"));
        command.arg("-c").arg(self.dir.join("config")).args(args).env("TZ", "UTC");
        let output = command.output().context("starting supervisorctl")?;
        // It ends with 3 where a job does not run.
        if output.status.code().is_none_or(|code| code != 0 && code != 3) {
            bail!("{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn exits(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("exited: job")).map(str::to_owned).collect()
    }
}

impl Supervisor for Supervisord {
    fn serve(&self) -> Result<Running> {
        let mut command = Command::new(self.bin.join("supervisord"));
        command.arg("-c").arg(self.dir.join("config")).env("TZ", "UTC");
        let log = File::create(self.dir.join("out")).context("creating a scratch file")?;
        let running = Running::start(command.stdout(log.try_clone()?).stderr(log))?;
        patiently("supervisord", || self.ask(&["pid"]).ok().filter(|pid| *pid == running.pid().to_string()))?;
        Ok(running)
    }

    fn start(&self, script: &str) -> Result<String> {
        fs::write(self.dir.join("script"), script).context("writing a script")?;
        let before = self.exits().len();
        self.ask(&["start", "job"])?;
        Ok(before.to_string())
    }

    fn noticed(&self, job: &str) -> Result<f64> {
        let before: usize = job.parse().context("a number")?;
        patiently("supervisord to tell of an end", || self.exits().get(before).and_then(|line| second_of_day(line)))
    }

    fn tells(&self, _job: &str) -> Result<String> {
        let told = self.ask(&["status", "job"])?;
        Ok(told.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_all_are_read() {
        for text in ["2026-11-25T12:30:39.366040521Z", "2026-11-25 12:30:39,366 WARN exited: job", "12:30:39.366\n"] {
            let read = second_of_day(text).expect("a time");
            assert!((read - 45_039.366).abs() < 0.001, "{text}: {read}");
        }
        assert_eq!(second_of_day("no time"), None);
    }
}
