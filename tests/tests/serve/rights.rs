//! Who agents are, and what they get.

use std::collections::BTreeMap;
use std::fs;

use agent_loop_tests::harness::Host;
use agent_loop_tests::needs;

use crate::{said, shell};

/// What an agent tells of itself, by the heading of each part.
fn account(host: &Host, id: &str) -> BTreeMap<String, String> {
    let run = host.ended(id);
    let output = host.output(id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &0.into()), "{run}\n{output}");
    let parts = output.split("== ").skip(1).filter_map(|part| part.split_once('\n'));
    parts.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// A shell's account of itself: it opens nothing while it is looked at from outside. Its status it reads itself: it
/// blocks signals while it starts another program.
const TELL: &str = "echo == status; while IFS= read -r line; do echo \"$line\"; done < /proc/$$/status; echo == fds; ls /proc/$$/fd; echo == environ; \
                    tr '\\0' '\\n' < /proc/$$/environ; echo == stat; cat /proc/$$/stat; echo == pid; echo $$; \
                    echo == umask; umask; echo == cwd; readlink /proc/$$/cwd; echo == stdin; readlink /proc/$$/fd/0; \
                    echo == limits; cat /proc/$$/oom_score_adj";

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[test]
fn an_agent_is_the_configured_user_without_a_right_more() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let account = account(&host, &host.start(&[], shell(TELL)));
    let status = &account["status"];
    let nobody = nix::unistd::User::from_name("nobody").expect("the user database").expect("nobody");
    let of = |number: u32| [number; 4].map(|number| number.to_string()).join("\t");
    assert_eq!(field(status, "Uid"), of(nobody.uid.as_raw()));
    assert_eq!(field(status, "Gid"), of(nobody.gid.as_raw()));
    let name = std::ffi::CString::new("nobody").expect("no zero");
    let groups = nix::unistd::getgrouplist(&name, nobody.gid).expect("its groups");
    let told: Vec<u32> = field(status, "Groups").split(' ').map(|group| group.parse().expect("a number")).collect();
    assert_eq!(told, groups.iter().map(|group| group.as_raw()).collect::<Vec<_>>(), "none of the daemon's");
    assert_eq!(field(status, "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(status, set), "0000000000000000", "{set}");
    }
    // Told by the command itself: a shell blocks signals while it forks.
    let id = host.start(&[], ["cat", "/proc/self/status"]);
    assert_eq!(host.ended(&id)["code"], 0);
    for set in ["SigBlk", "SigIgn"] {
        assert_eq!(field(&host.output(&id), set), "0000000000000000", "{set}");
    }
    assert_eq!(account["umask"].trim(), "0022");
    let pid = account["pid"].trim();
    let stat = account["stat"].rsplit_once(") ").expect("a stat").1.split(' ').collect::<Vec<_>>();
    // State, parent, process group, session, terminal.
    assert_eq!((stat[2], stat[3], stat[4]), (pid, pid, "0"), "a session of its own, without a terminal");
}

#[test]
fn an_agent_has_three_descriptors_and_the_allowed_environment_and_nothing_else() {
    needs!(root, bpf, cgroup);
    let mut host = Host::new();
    host.configure("", "user = \"nobody\"\nenv = [\"ALLOWED\", \"ABSENT\"]\n", "");
    host.set_env("ALLOWED", "yes");
    host.set_env("SECRET", "hunter2");
    host.set_env("HOME", "/root");
    let _daemon = host.serving();
    let input = host.path("input");
    fs::write(&input, "").expect("a scratch file");
    let id = host.start(&["--env", "OWN=a=b", "--stdin", input.to_str().expect("UTF-8")], shell(TELL));
    let account = account(&host, &id);
    assert_eq!(account["fds"], "0\n1\n2\n");
    assert_eq!(account["cwd"], "/\n");
    assert_eq!(account["stdin"].trim(), input.to_str().expect("UTF-8"));
    let nobody = nix::unistd::User::from_name("nobody").expect("the user database").expect("nobody");
    let mut environment: Vec<&str> = account["environ"].lines().collect();
    environment.sort_unstable();
    let home = format!("HOME={}", nobody.dir.display());
    let shell = format!("SHELL={}", nobody.shell.display());
    let mut expected = vec!["ALLOWED=yes", &home, "LOGNAME=nobody", "OWN=a=b", &shell, "USER=nobody"];
    expected.sort_unstable();
    assert_eq!(environment, expected);
}

#[test]
fn what_an_agent_writes_can_be_neither_read_nor_changed_by_it() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let script = format!(
        "echo first; for file in /proc/$$/fd/1 {log}/runs {state} {state}/agent-loop.db {run}/keeper; do \
         cat $file > /dev/null 2>&1 && echo read $file; ls $file/ > /dev/null 2>&1 && echo list $file; \
         true 2> /dev/null >> $file && echo write $file; done; exit 0",
        log = host.path("log").display(),
        state = host.path("state").display(),
        run = host.path("run").display(),
    );
    let id = host.start(&[], shell(&script));
    assert_eq!(host.ended(&id)["code"], 0);
    // Its own standard output is a pipe, which it may open to write again, to whatever end.
    let output = host.output(&id);
    let others: Vec<&str> = output.lines().filter(|line| !line.contains("/fd/1")).collect();
    assert_eq!(others, ["first"]);
}

#[test]
fn root_is_no_agent_unless_that_is_allowed() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("", "user = \"root\"\n", "");
    let mut refused = host.serve();
    assert_eq!(refused.wait().code(), Some(3), "{}", refused.log());
    assert!(refused.log().contains("allow_root"), "{}", refused.log());

    host.configure("", "user = \"root\"\nallow_root = true\n", "");
    let _daemon = host.serving();
    let account = account(&host, &host.start(&[], shell(TELL)));
    assert_eq!(field(&account["status"], "Uid"), "0\t0\t0\t0");
    assert_eq!(account["fds"], "0\n1\n2\n");
}

#[test]
fn without_a_user_nothing_is_started_and_it_is_said_what_to_write() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("", "", "");
    let _daemon = host.serving();
    let refused = host.ask(["start", "--", "true"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("no `user` is set in `[agent]`"), "{}", said(&refused));
    assert_eq!(host.asked(["ps", "--all"])["runs"], serde_json::json!([]));
}
