//! Offsets from BTF: equal to those that bpftool finds, and refused by name where BTF is bad.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use agent_loop::kernel::{Layout, LayoutError};
use agent_loop_tests::harness::skip;
use agent_loop_tests::{needs, test_name};

/// Each global of the eBPF program and the field it is the offset of; `?` marks those a kernel may lack.
const FIELDS: &str = "
    OFF_TASK_PID task_struct pid
    OFF_TASK_TGID task_struct tgid
    OFF_TASK_GROUP_LEADER task_struct group_leader
    OFF_TASK_REAL_PARENT task_struct real_parent
    OFF_TASK_THREAD_PID task_struct thread_pid
    OFF_TASK_SIGNAL task_struct signal
    OFF_TASK_START_BOOTTIME task_struct start_boottime
    OFF_TASK_EXIT_CODE task_struct exit_code
    OFF_TASK_FLAGS task_struct flags
    OFF_TASK_MM task_struct mm
    OFF_TASK_CGROUPS task_struct cgroups
    OFF_TASK_COMM task_struct comm
    OFF_SIGNAL_LIVE signal_struct live
    OFF_SIGNAL_FLAGS signal_struct flags
    OFF_SIGNAL_GROUP_EXIT_CODE signal_struct group_exit_code
    OFF_PID_INO pid ino ?
    OFF_PID_LEVEL pid level
    OFF_PID_NUMBERS pid numbers
    OFF_UPID_NR upid nr
    OFF_UPID_NS upid ns
    OFF_PIDNS_INUM pid_namespace ns.inum
    OFF_CSS_SET_DFL_CGRP css_set dfl_cgrp
    OFF_CGROUP_KN cgroup kn
    OFF_CGROUP_LEVEL cgroup level
    OFF_CGROUP_ANCESTORS cgroup ancestors ?
    OFF_CGROUP_ANCESTOR_IDS cgroup ancestor_ids ?
    OFF_KN_ID kernfs_node id
    OFF_MM_ARG_START mm_struct arg_start
    OFF_MM_ARG_END mm_struct arg_end
    OFF_BPRM_FILENAME linux_binprm filename
    OFF_BPRM_FILE linux_binprm file
    OFF_BPRM_ARGC linux_binprm argc
    OFF_FILE_INODE file f_inode
    OFF_INODE_INO inode i_ino
    OFF_INODE_SB inode i_sb
    OFF_SB_DEV super_block s_dev";

/// A structure or union as `bpftool btf dump … format raw` prints it.
#[derive(Default)]
struct Dumped {
    size: u32,
    /// Name (empty if anonymous), type, offset in bits.
    members: Vec<(String, u32, u32)>,
}

/// Structures by number, and the numbers of those with a name.
struct Dump {
    by_id: HashMap<u32, Dumped>,
    by_name: HashMap<String, u32>,
}

fn number(words: &[&str], key: &str) -> Option<u32> {
    words.iter().find_map(|word| word.strip_prefix(key)?.parse().ok())
}

impl Dump {
    fn parse(text: &str) -> Self {
        let mut dump = Self { by_id: HashMap::new(), by_name: HashMap::new() };
        let mut current = None;
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let quoted = line.split('\'').nth(1).unwrap_or_default().to_owned();
            let name = if quoted == "(anon)" { String::new() } else { quoted };
            if line.starts_with('[') {
                current = None;
                let id = words[0].trim_matches(['[', ']']).parse().unwrap_or(0);
                if matches!(words[1], "STRUCT" | "UNION") {
                    current = Some(id);
                    dump.by_id.insert(id, Dumped { size: number(&words, "size=").unwrap_or(0), members: vec![] });
                    if words[1] == "STRUCT" && !name.is_empty() {
                        dump.by_name.entry(name).or_insert(id);
                    }
                }
            } else if let Some(id) = current
                && let (Some(kind), Some(bits)) = (number(&words, "type_id="), number(&words, "bits_offset="))
            {
                dump.by_id.entry(id).or_default().members.push((name, kind, bits));
            }
        }
        dump
    }

    fn member(&self, of: u32, wanted: &str) -> Option<(u32, u32)> {
        self.by_id.get(&of)?.members.iter().find_map(|(name, kind, bits)| {
            if name == wanted {
                return Some((*bits / 8, *kind));
            }
            let (deeper, kind) = name.is_empty().then(|| self.member(*kind, wanted)).flatten()?;
            Some((bits / 8 + deeper, kind))
        })
    }

    fn offset(&self, of: &str, path: &str) -> Option<u32> {
        let mut at = (0, *self.by_name.get(of)?);
        for name in path.split('.') {
            let (offset, kind) = self.member(at.1, name)?;
            at = (at.0 + offset, kind);
        }
        Some(at.0)
    }
}

#[test]
fn the_offsets_are_those_that_bpftool_finds() {
    needs!(bpf);
    let dump = Command::new("bpftool").args(["btf", "dump", "file", Layout::VMLINUX, "format", "raw"]).output();
    let Some(dump) = dump.ok().filter(|dump| dump.status.success()) else {
        return skip(test_name!(), "bpftool is not installed");
    };
    let dump = Dump::parse(&String::from_utf8_lossy(&dump.stdout));
    let layout = Layout::of_running_kernel().expect("a known layout");
    let mut globals: HashMap<_, _> = layout.globals().map(|(name, value)| (name, *value)).collect();
    for line in FIELDS.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let found = dump.offset(words[1], words[2]);
        assert!(found.is_some() || words.get(3) == Some(&"?"), "{line}");
        assert_eq!(globals.remove(words[0]), Some(found.unwrap_or(u32::MAX)), "{line}");
    }
    assert_eq!(globals.remove("SIZE_UPID"), Some(dump.by_id[&dump.by_name["upid"]].size));
    assert!(globals.is_empty(), "not compared: {globals:?}");
}

/// A file with these bytes, read as BTF.
fn read(bytes: &[u8]) -> Result<Layout, LayoutError> {
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    fs::write(file.path(), bytes).expect("it can be written");
    Layout::from_file(file.path())
}

/// The running kernel's BTF with each string `from` replaced by one of the same length.
fn renamed(btf: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (from, to) = (format!("\0{from}\0").into_bytes(), format!("\0{to}\0").into_bytes());
    assert_eq!(from.len(), to.len());
    let mut bytes = btf.to_vec();
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(&from) {
            bytes[at..at + to.len()].copy_from_slice(&to);
            found += 1;
        }
    }
    assert!(found > 0, "the string is there");
    bytes
}

#[test]
fn a_field_or_prototype_that_is_missing_is_named() {
    needs!(bpf);
    let btf = fs::read(Layout::VMLINUX).expect("the kernel's BTF");
    for (structure, field) in [
        ("task_struct", "start_boottime"),
        ("signal_struct", "group_exit_code"),
        ("css_set", "dfl_cgrp"),
        ("mm_struct", "arg_start"),
    ] {
        let to = "x".repeat(field.len());
        match read(&renamed(&btf, field, &to)) {
            Err(LayoutError::Missing { structure: s, field: f }) => assert_eq!((s, f), (structure, field)),
            other => panic!("{field}: {other:?}"),
        }
    }
    match read(&renamed(&btf, "linux_binprm", "linux_xxxxxx")) {
        Err(error @ LayoutError::Missing { .. }) => assert!(error.to_string().contains("linux_binprm"), "{error}"),
        other => panic!("{other:?}"),
    }
    match read(&renamed(&btf, "btf_trace_sched_process_exit", "btf_trace_sched_process_xxxx")) {
        Err(error @ LayoutError::Prototype(_)) => assert!(error.to_string().contains("sched_process_exit"), "{error}"),
        other => panic!("{other:?}"),
    }
    // One that a kernel may lack is not needed.
    let older = read(&renamed(&btf, "ino", "xno")).expect("before Linux 6.9");
    assert!(!older.has_pidfs());
}

#[test]
fn a_bad_btf_file_is_refused_and_never_a_panic() {
    needs!(bpf);
    let unreadable = |bytes: &[u8]| match read(bytes) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(layout) => panic!("{} bytes were taken: {layout:?}", bytes.len()),
    };
    unreadable(&[]);
    assert!(matches!(Layout::from_file(Path::new("/nonexistent")), Err(LayoutError::Unreadable { .. })));
    let btf = fs::read(Layout::VMLINUX).expect("the kernel's BTF");
    for length in [1, 8, 23, 24, 25, 100, 4_096, btf.len() / 3, btf.len() / 2] {
        unreadable(&btf[..length]);
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for length in [24, 512, 65_536] {
        let bytes: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
        unreadable(&bytes);
        // With a header that is right.
        unreadable(&[&btf[..24], &bytes].concat());
    }
    // The right file with some bytes flipped: whatever the answer, it is an answer.
    for _ in 0..6 {
        let mut bytes = btf.clone();
        for _ in 0..200 {
            let at = random() as usize % bytes.len();
            bytes[at] ^= random().to_le_bytes()[1] | 1;
        }
        drop(read(&bytes));
    }
}
