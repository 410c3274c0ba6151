//! The daemon where its clock is not the kernel's.

use std::process::{Command, Stdio};

use agent_loop_tests::harness::cgroup::Cell;
use agent_loop_tests::harness::{Host, agent_loop, eventually};
use agent_loop_tests::needs;

use crate::said;

#[test]
fn in_a_time_namespace_a_daemon_is_refused_and_says_why() {
    needs!(root, bpf, cgroup);
    for offset in ["86400", "-60"] {
        let (host, cell) = (Host::new(), Cell::new());
        let mut command = Command::new("unshare");
        command.args(["--time", "--boottime", offset, "--fork", "--kill-child"]).arg(agent_loop());
        command.args(["serve", "--config"]).arg(host.path("config.toml"));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = cell.hold(&mut command).spawn().expect("unshare");
        // Where it is not refused it goes on for ever, and ends with its cgroup.
        eventually("its end", || child.try_wait().expect("our child"));
        let refused = child.wait_with_output().expect("our child");
        assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
        assert!(said(&refused).contains("time namespace"), "{}", said(&refused));
        assert!(!host.path("state").exists() && !host.path("run").exists(), "nothing was begun");
        cell.assert_empty();
    }
}
