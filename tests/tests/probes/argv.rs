//! What was executed: arguments, file name and file, at the edges of the record's size classes.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use agent_loop::kernel::Options;
use agent_loop::model::Exec;
use agent_loop_common::record::{EXEC_LARGE, EXEC_MEDIUM, EXEC_SMALL, ExecHeader, FILENAME_LARGE, FILENAME_SMALL};
use agent_loop_tests::needs;
use agent_loop_tests::sys::{self, Image};
use agent_loop_tests::traced::{Run, Traced, copy, end, enter};

const TRUE: &str = "/bin/true";
const HEADER: usize = size_of::<ExecHeader>();

fn text(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).expect("no NUL")
}

/// Lets a child in the run execute this; what was told of it.
fn exec(run: &Run, traced: &mut Traced, image: Image) -> Exec {
    traced.drain().events.clear();
    let mut command = Command::new("never executed");
    enter(&mut command, run.path());
    sys::before_exec(&mut command, move || Err(image.execute()));
    let (pid, _) = end(command.spawn().expect("the image can be executed"));
    traced.drain();
    let execs: Vec<_> = traced.execs().filter(|exec| exec.key.tgid == pid).cloned().collect();
    assert_eq!(execs.len(), 1);
    execs[0].clone()
}

fn same_file(exec: &Exec, path: &Path) {
    let stat = fs::metadata(path).expect("the file");
    assert_eq!(exec.file, Some((stat.dev(), stat.ino())), "{}", path.display());
}

#[test]
fn an_argv_of_none_one_or_empty_arguments_is_told() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    // Since Linux 5.18 no argument at all becomes one that is empty.
    let none = exec(&run, &mut traced, Image::path(text(TRUE), vec![]));
    assert!(none.argc == 1 && none.argv == [""] || none.argc == 0 && none.argv.is_empty(), "{none:?}");
    for argv in [vec![""], vec!["true"], vec!["", "", ""], vec!["", "b"], vec!["a", ""]] {
        let told =
            exec(&run, &mut traced, Image::path(text(TRUE), argv.iter().map(|argument| text(*argument)).collect()));
        assert_eq!(
            (told.argv, told.argc as usize, told.truncated),
            (argv.iter().map(|it| (*it).to_owned()).collect(), argv.len(), false)
        );
    }
    traced.assert_all_ended();
}

#[test]
fn an_argv_at_the_edge_of_a_size_class_is_whole_or_declared_truncated() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let classes = [(EXEC_SMALL, FILENAME_SMALL), (EXEC_MEDIUM, FILENAME_LARGE), (EXEC_LARGE, FILENAME_LARGE)];
    let rooms = classes.map(|(size, name)| size - HEADER - name);
    let largest = rooms[2];
    let sizes = rooms.iter().flat_map(|room| room - 1..=room + 1).chain([100 << 10]);
    for bytes in sizes {
        // `true`, then one argument for the rest, terminators included.
        let argument = "x".repeat(bytes - "true".len() - 2);
        let told = exec(&run, &mut traced, Image::path(text(TRUE), vec![text("true"), text(argument.clone())]));
        assert_eq!(told.argc, 2);
        assert_eq!(told.truncated, bytes > largest, "{bytes} bytes");
        let kept = argument.len().min(largest - "true".len() - 1);
        assert_eq!(told.argv.len(), 2, "{bytes} bytes");
        assert_eq!((told.argv[0].as_str(), told.argv[1].as_str()), ("true", &argument[..kept]), "{bytes} bytes");
    }
    assert_eq!(traced.tracing.counters.sum(agent_loop_common::counter::Counter::ArgvUnread).expect("it"), 0);
}

#[test]
fn a_large_argv_of_many_arguments_is_truncated_with_its_true_count() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let argv: Vec<_> = (0..2_048).map(|index| text(format!("{index:099}"))).collect();
    let told = exec(&run, &mut traced, Image::path(text(TRUE), argv.clone()));
    assert_eq!((told.argc, told.truncated), (2_048, true));
    let room = EXEC_LARGE - HEADER - FILENAME_LARGE;
    assert_eq!(told.argv.len(), room.div_ceil(100));
    for (told, given) in told.argv.iter().zip(&argv).take(room / 100) {
        assert_eq!(told.as_bytes(), given.as_bytes());
    }
}

#[test]
fn an_argv_that_is_not_utf8_is_told_lossily() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let told = exec(&run, &mut traced, Image::path(text(TRUE), vec![text("true"), text([b'a', 0xff, b'b'])]));
    assert_eq!(told.argv, ["true", "a\u{fffd}b"]);
    assert!(!told.truncated);
}

#[test]
fn a_file_name_is_whole_up_to_the_large_room_and_then_declared_truncated() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let scratch = run.scratch("");
    let base = scratch.to_str().expect("a path").trim_end_matches('/').to_owned();
    // A name that ends with its terminator just inside a room, just outside, and far beyond.
    for length in [FILENAME_SMALL - 1, FILENAME_SMALL, 300, FILENAME_LARGE - 1, FILENAME_LARGE, 900] {
        let mut path = base.clone();
        while length - path.len() > 200 {
            path = format!("{path}/{}", "d".repeat(99));
        }
        path = format!("{path}/{}", "f".repeat(length - path.len() - 1));
        assert_eq!(path.len(), length);
        fs::create_dir_all(Path::new(&path).parent().expect("a directory")).expect("directories");
        copy(Path::new(TRUE), Path::new(&path));
        let told = exec(&run, &mut traced, Image::path(text(path.clone()), vec![text("true")]));
        assert_eq!(told.truncated, length >= FILENAME_LARGE, "{length}");
        assert_eq!(told.filename, path[..length.min(FILENAME_LARGE - 1)], "{length}");
        assert_eq!(told.argv, ["true"]);
        same_file(&told, Path::new(&path));
    }
    let totals = traced.tracing.counters.read().expect("the counters");
    assert_eq!((totals.seen_exec, totals.lost_exec), (6, 0), "a record moved to a larger class is one exec");
}

#[test]
fn of_a_script_the_name_is_the_scripts_and_the_file_is_its_interpreter() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let script = run.scratch("script");
    let text_of_it = run.scratch("text");
    fs::write(&text_of_it, format!("#!{TRUE} option\n")).expect("a script");
    fs::set_permissions(&text_of_it, fs::Permissions::from_mode(0o755)).expect("executable");
    copy(&text_of_it, &script);
    let path = script.to_str().expect("a path").to_owned();
    let told = exec(&run, &mut traced, Image::path(text(path.clone()), vec![text("zero"), text("one")]));
    assert_eq!(told.filename, path);
    assert_eq!(told.argv, [TRUE, "option", &path, "one"]);
    assert_eq!(told.argc, 4);
    same_file(&told, Path::new(TRUE));
}

#[test]
fn an_exec_by_descriptor_is_told_with_its_file() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let file = File::open(TRUE).expect("it is there");
    let told = exec(&run, &mut traced, Image::descriptor(file.as_raw_fd(), vec![text("true"), text("x")]));
    assert_eq!(told.filename, format!("/dev/fd/{}", file.as_raw_fd()));
    assert_eq!(told.argv, ["true", "x"]);
    same_file(&told, Path::new(TRUE));
}

#[test]
fn the_file_is_told_as_stat_tells_it_on_every_file_system_here() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let mut devices = std::collections::BTreeSet::new();
    for dir in ["/tmp", "/dev/shm", "/run", "/var/tmp"] {
        let Ok(dir) = tempfile::tempdir_in(dir) else { continue };
        let program = dir.path().join("program");
        copy(Path::new(TRUE), &program);
        let path = program.to_str().expect("a path").to_owned();
        // Where nothing may be executed, nothing is to be told.
        if Command::new(&program).status().is_err() {
            continue;
        }
        let told = exec(&run, &mut traced, Image::path(text(path), vec![text("true")]));
        same_file(&told, &program);
        devices.insert(told.file.expect("a file").0);
    }
    assert!(!devices.is_empty());
    println!("devices: {devices:x?}");
}
