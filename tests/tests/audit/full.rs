//! A disk that is full in the middle: the reserve is given up, what finds no room is declared, and it goes on with space.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_loop::audit::log::{AuditLog, Place, Settings, layout};
use agent_loop::audit::{Clock, Line, Recorder};
use agent_loop::model::BootNs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{judged, state};

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";
const LONG: Duration = Duration::from_secs(20);
const RESERVE: u64 = 512 << 10;

/// Runs a test on a file system of three MiB that only its own thread, and threads of that, can see.
fn on_a_small_disk(test: impl FnOnce(&Path) + Send) {
    let dir = state();
    let point = dir.path().join("small");
    fs::create_dir(&point).expect("ours");
    std::thread::scope(|scope| {
        let tested = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("we are root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("we are root");
            let options = Some("size=3m,mode=700");
            mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::MS_NOSUID, options).expect("we are root");
            test(&point);
        });
        if let Err(panic) = tested.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn fill(point: &Path) -> PathBuf {
    let path = point.join("filler");
    let mut file = fs::File::create(&path).expect("ours");
    while file.write_all(&[1; 4096]).is_ok() {}
    path
}

fn open(point: &Path) -> AuditLog {
    let settings = Settings { reserve: RESERVE, low_water: 64 << 10, pending_bytes: 256 << 10, ..Settings::default() };
    AuditLog::open(&Place::below(point), settings, BOOT).expect("a log").0
}

/// A line of four thousand bytes and some.
fn intent() -> Line {
    let words = vec!["x".repeat(4_000)];
    Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), words, "agent".to_owned())
        .intent(Clock { boot: BootNs(5), real_ns: 1_000 })
}

#[test]
fn a_disk_that_is_full_in_the_middle_is_told_declared_and_written_again_when_there_is_space() {
    on_a_small_disk(|point| {
        let audit = point.join("audit");
        let mut log = open(point);
        assert!(log.durable(LONG) && audit.join(layout::RESERVE).exists());
        let filler = fill(point);
        for _ in 0..5 {
            assert!(log.append(intent()).is_some());
        }
        assert!(log.durable(LONG), "the reserve is there for this: {:?}", log.progress());
        assert!(!audit.join(layout::RESERVE).exists());

        let (mut taken, mut refused) = (5_u64, 0_u64);
        let end = Instant::now() + LONG;
        while refused < 100 || log.progress().failing.is_none() {
            assert!(Instant::now() < end, "{:?}", log.progress());
            match log.append(intent()) {
                Some(_) => taken += 1,
                None => refused += 1,
            }
            log.flush();
        }
        assert!(log.progress().full && log.progress().durable < log.next());
        assert!(!log.durable(Duration::from_millis(20)), "what was refused is never durable");

        fs::remove_file(filler).expect("ours");
        while log.append(intent()).is_none() {
            refused += 1;
            assert!(Instant::now() < end + LONG, "{:?}", log.progress());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(log.durable(LONG), "{:?}", log.progress());
        let next = log.next();
        let progress = log.close();
        assert_eq!((progress.durable, progress.signed, progress.failing), (next, next, None));
        assert!(!progress.full && audit.join(layout::RESERVE).exists(), "there is room for another reserve");

        let report = judged(&audit);
        assert_eq!(report.verdict().code(), 2, "{:?}", report.damage);
        let text = fs::read_to_string(&layout::segments(&audit).expect("segments")[0].path).expect("a segment");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let declared: u64 = lines.iter().filter_map(|line| line["gap"]["lines"].as_u64()).sum();
        let there = lines.iter().filter(|line| line["kind"] == "run.intent").count() as u64;
        assert_eq!((declared, there), (refused, taken + 1));
    });
}

#[test]
fn a_writer_that_starts_on_a_full_disk_gives_up_the_reserve_of_the_one_before() {
    on_a_small_disk(|point| {
        let mut log = open(point);
        assert!(log.durable(LONG));
        let _ = log.close();
        drop(log);
        let _filler = fill(point);
        let mut log = open(point);
        for _ in 0..5 {
            assert!(log.append(intent()).is_some());
        }
        assert!(log.durable(LONG), "{:?}", log.progress());
        assert!(!point.join("audit").join(layout::RESERVE).exists());
        let _ = log.close();
        assert!(judged(&point.join("audit")).verdict().code() <= 1);
    });
}
