//! The token, over a whole life: nowhere but in its file and on its way to the forge.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use agent_loop_tests::fake_github::{Answer, Fault, TOKEN, When};
use agent_loop_tests::harness::{Scene, WORKS};
use agent_loop_tests::needs;

/// The processes of a cgroup and of all below it.
fn processes(dir: &Path, found: &mut Vec<u32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), found);
        }
    }
}

/// What was seen of processes: their names, and where a token stood.
#[derive(Debug, Default)]
struct Looks {
    names: BTreeSet<String>,
    looks: u64,
    found: Vec<String>,
}

impl Looks {
    fn look(&mut self, cell: &Path, token: &[u8]) {
        let mut pids = Vec::new();
        processes(cell, &mut pids);
        for pid in pids {
            for what in ["environ", "cmdline"] {
                let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
                self.looks += 1;
                if bytes.windows(token.len()).any(|it| it == token) {
                    self.found.push(format!("{what} of {}", String::from_utf8_lossy(&bytes)));
                }
            }
            self.names.insert(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned());
        }
    }
}

#[test]
fn the_token_is_in_no_file_no_environment_no_argument_and_no_word_of_a_whole_life() {
    needs!(root, bpf, cgroup);
    // The agent looks for it, too.
    let scene =
        Scene::new(&format!("{WORKS}env > \"$3/env\"\ncat /proc/*/environ >> \"$3/env\" 2> /dev/null || true\n"));
    // What goes wrong on the way has its say: a refusal, a gateway, an answer that is none.
    scene.forge.play(When::next("get", "/issues/{issue_number}/comments"), Fault::Instead(Answer::bad_credentials()));
    scene.forge.play(When::next("post", "/pulls"), Fault::Instead(Answer::bad_gateway()));
    scene.forge.play(When::next("get", "/check-runs"), Fault::CutShort);
    let number = scene.issue("mend the door");
    let cell = scene.host.runs().parent().expect("a cgroup").to_owned();
    let over = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = Looks::default();
            while !over.load(Ordering::Relaxed) {
                looks.look(&cell, TOKEN.as_bytes());
                // What lives shorter is looked at by the test of a push that is held.
                thread::sleep(Duration::from_millis(2));
            }
            looks
        });
        let _daemon = scene.serving();
        let said = scene.until("the end", || {
            let queue = scene.host.ask(["queue", "--json"]);
            let closed = !scene.forge.world().issues[&number].open;
            (closed && scene.task(number).is_none()).then(|| String::from_utf8_lossy(&queue.stdout).into_owned())
        });
        over.store(true, Ordering::Relaxed);
        assert!(!said.contains(TOKEN));
        looking.join().expect("it looked")
    });
    assert_eq!(looks.found, Vec::<String>::new());
    let seen = |name: &str| looks.names.iter().any(|it| it.contains(name));
    assert!(seen("agent-loop") && seen("git") && looks.looks > 100, "{} looks at {:?}", looks.looks, looks.names);
    // Also in what was said while it went wrong, and in what the agent found.
    let (files, found) = scene.files_with(TOKEN.as_bytes());
    assert_eq!(found, Vec::<std::path::PathBuf>::new());
    assert!(files > 20 && scene.left("env").contains("PATH="), "{files} files");
    let encoded = data_encoding::BASE64.encode(format!("x-access-token:{TOKEN}").as_bytes());
    assert_eq!(scene.files_with(encoded.as_bytes()).1, Vec::<std::path::PathBuf>::new());
    assert!(scene.said().contains("401") || scene.said().contains("credentials"), "{}", scene.said());
}
