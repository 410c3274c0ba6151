//! Finds the offsets of kernel fields in BTF, and refuses a kernel that lacks one that is needed.

use std::path::Path;

use btf_rs::{Backend, Btf, BtfType, Type};

/// The offset handed to the eBPF program for a field this kernel does not have.
const ABSENT: u32 = u32::MAX;

/// Why the layout of the kernel's structures is not known.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is no BTF, or it cannot be read.
    #[error("reading the kernel's type information (BTF) from {path}, which needs CONFIG_DEBUG_INFO_BTF: {why}")]
    Unreadable {
        /// Where it was looked for.
        path: String,
        /// What went wrong.
        why: btf_rs::Error,
    },
    /// A field that is needed is not there.
    #[error("this kernel's {structure} has no {field}: it cannot be traced safely")]
    Missing {
        /// The structure.
        structure: &'static str,
        /// The path of the field in it.
        field: &'static str,
    },
    /// A tracepoint has a prototype that this version does not know.
    #[error("this kernel's tracepoint {0} has an unknown prototype")]
    Prototype(&'static str),
}

/// Which form of the exit tracepoint this kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitHook {
    /// It says itself whether the process is dead (Linux 6.16 and later).
    GroupDead,
    /// It does not: the live set is the latch.
    Latch,
}

/// Whether this kernel preempts a program at a tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracepoints {
    /// It does not: a hook that has begun ends before another one runs on its CPU.
    Whole,
    /// It does (Linux 7.0 and later): it may skip a hook for another process that is preempted in it, so hooks have
    /// copies.
    Preemptible,
}

/// The offsets of the running kernel, under the names of the eBPF program's globals.
#[derive(Clone, Debug)]
pub struct Layout {
    offsets: Vec<(&'static str, u32)>,
    exit: ExitHook,
    tracepoints: Tracepoints,
}

/// A field: the global that receives its offset, the structure, the path in it, and whether it is needed.
type Field = (&'static str, &'static str, &'static str, bool);

const FIELDS: &[Field] = &[
    ("OFF_TASK_PID", "task_struct", "pid", true),
    ("OFF_TASK_TGID", "task_struct", "tgid", true),
    ("OFF_TASK_GROUP_LEADER", "task_struct", "group_leader", true),
    ("OFF_TASK_REAL_PARENT", "task_struct", "real_parent", true),
    ("OFF_TASK_THREAD_PID", "task_struct", "thread_pid", true),
    ("OFF_TASK_SIGNAL", "task_struct", "signal", true),
    ("OFF_TASK_START_BOOTTIME", "task_struct", "start_boottime", true),
    ("OFF_TASK_EXIT_CODE", "task_struct", "exit_code", true),
    ("OFF_TASK_FLAGS", "task_struct", "flags", true),
    ("OFF_TASK_MM", "task_struct", "mm", true),
    ("OFF_TASK_CGROUPS", "task_struct", "cgroups", true),
    ("OFF_TASK_COMM", "task_struct", "comm", true),
    ("OFF_TASK_SELF_EXEC_ID", "task_struct", "self_exec_id", true),
    ("OFF_SIGNAL_LIVE", "signal_struct", "live", true),
    ("OFF_SIGNAL_FLAGS", "signal_struct", "flags", true),
    ("OFF_SIGNAL_GROUP_EXIT_CODE", "signal_struct", "group_exit_code", true),
    // Linux 6.9 and later.
    ("OFF_PID_INO", "pid", "ino", false),
    ("OFF_PID_LEVEL", "pid", "level", true),
    ("OFF_PID_NUMBERS", "pid", "numbers", true),
    ("OFF_UPID_NR", "upid", "nr", true),
    ("OFF_UPID_NS", "upid", "ns", true),
    ("OFF_PIDNS_INUM", "pid_namespace", "ns.inum", true),
    ("OFF_CSS_SET_DFL_CGRP", "css_set", "dfl_cgrp", true),
    ("OFF_CGROUP_KN", "cgroup", "kn", true),
    ("OFF_CGROUP_LEVEL", "cgroup", "level", true),
    // Linux 6.1 and later; before it an array of ids.
    ("OFF_CGROUP_ANCESTORS", "cgroup", "ancestors", false),
    ("OFF_CGROUP_ANCESTOR_IDS", "cgroup", "ancestor_ids", false),
    ("OFF_KN_ID", "kernfs_node", "id", true),
    ("OFF_MM_ARG_START", "mm_struct", "arg_start", true),
    ("OFF_MM_ARG_END", "mm_struct", "arg_end", true),
    ("OFF_BPRM_FILENAME", "linux_binprm", "filename", true),
    ("OFF_BPRM_FILE", "linux_binprm", "file", true),
    ("OFF_BPRM_ARGC", "linux_binprm", "argc", true),
    ("OFF_FILE_INODE", "file", "f_inode", true),
    ("OFF_INODE_INO", "inode", "i_ino", true),
    ("OFF_INODE_SB", "inode", "i_sb", true),
    ("OFF_SB_DEV", "super_block", "s_dev", true),
];

impl Layout {
    /// Where the running kernel offers its types.
    pub const VMLINUX: &'static str = "/sys/kernel/btf/vmlinux";

    /// Reads the layout of the running kernel.
    ///
    /// # Errors
    /// When there is no BTF, or a field or prototype that is needed is missing: a guess would read garbage.
    pub fn of_running_kernel() -> Result<Self, LayoutError> {
        Self::from_file(Path::new(Self::VMLINUX))
    }

    /// Reads the layout from a BTF file.
    ///
    /// # Errors
    /// As [`Layout::of_running_kernel`].
    pub fn from_file(path: &Path) -> Result<Self, LayoutError> {
        let btf = open(path).map_err(|why| LayoutError::Unreadable { path: path.display().to_string(), why })?;
        let mut offsets = Vec::with_capacity(FIELDS.len() + 1);
        // A name is searched through all types, so once for the fields of a structure, which stand together.
        let mut found: Option<(&str, Option<btf_rs::Struct>)> = None;
        for &(global, name, field, needed) in FIELDS {
            let (_, structure) = match found.take().filter(|(of, _)| *of == name) {
                Some(same) => found.insert(same),
                None => found.insert((name, structure(&btf, name))),
            };
            match structure.as_ref().and_then(|structure| offset_of(&btf, structure, field)) {
                Some(offset) => offsets.push((global, offset)),
                None if needed => return Err(LayoutError::Missing { structure: name, field }),
                None => offsets.push((global, ABSENT)),
            }
        }
        let size = structure(&btf, "upid").and_then(|upid| u32::try_from(upid.size()).ok());
        offsets.push(("SIZE_UPID", size.ok_or(LayoutError::Missing { structure: "upid", field: "size" })?));
        Ok(Self { offsets, exit: exit_hook(&btf)?, tracepoints: tracepoints(&btf) })
    }

    /// Each global of the eBPF program with its value.
    pub fn globals(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        self.offsets.iter().map(|(name, value)| (*name, value))
    }

    /// Which form of the exit tracepoint the kernel has.
    #[must_use]
    pub const fn exit_hook(&self) -> ExitHook {
        self.exit
    }

    /// Whether the kernel preempts a program at a tracepoint.
    #[must_use]
    pub const fn tracepoints(&self) -> Tracepoints {
        self.tracepoints
    }

    /// Whether the kernel has inodes for pidfds (Linux 6.9 and later).
    #[must_use]
    pub fn has_pidfs(&self) -> bool {
        self.offsets.iter().any(|(name, value)| *name == "OFF_PID_INO" && *value != ABSENT)
    }
}

/// Maps the file where that is possible: only what is looked at is then parsed, of more than 100,000 types.
///
/// The kernel's own file can be mapped on newer kernels only; what cannot be mapped is read and parsed as a whole.
fn open(path: &Path) -> Result<Btf, btf_rs::Error> {
    Btf::from_file_with_backend(path, Backend::Mmap).or_else(|_| Btf::from_bytes(&std::fs::read(path)?))
}

fn structure(btf: &Btf, name: &str) -> Option<btf_rs::Struct> {
    let found = btf.resolve_types_by_name(name).ok()?;
    found.into_iter().find_map(|found| if let Type::Struct(found) = found { Some(found) } else { None })
}

/// The offset in bytes of a field named by a dotted path; anonymous members are searched through.
fn offset_of(btf: &Btf, of: &btf_rs::Struct, path: &str) -> Option<u32> {
    let mut current = of.clone();
    let mut offset = 0;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let (at, type_id) = member(btf, &current, name)?;
        offset += at;
        if names.peek().is_some() {
            current = as_struct(btf.resolve_type_by_id(type_id).ok()?)?;
        }
    }
    Some(offset)
}

fn as_struct(found: Type) -> Option<btf_rs::Struct> {
    if let Type::Struct(found) | Type::Union(found) = found { Some(found) } else { None }
}

fn member(btf: &Btf, of: &btf_rs::Struct, wanted: &str) -> Option<(u32, u32)> {
    for member in &of.members {
        let name = btf.resolve_name(member).unwrap_or_default();
        let type_id = member.get_type_id()?;
        let at = member.bit_offset() / 8;
        if name == wanted {
            return Some((at, type_id));
        }
        if name.is_empty()
            && let Some(inner) = btf.resolve_type_by_id(type_id).ok().and_then(as_struct)
            && let Some((deeper, type_id)) = self::member(btf, &inner, wanted)
        {
            return Some((at + deeper, type_id));
        }
    }
    None
}

/// Tells by what guards a tracepoint: since Linux 7.0 (commit a46023d5616e) SRCU-fast, which leaves preemption on.
///
/// Kernels before 6.13 have an SRCU domain for tracepoints too, for a few that run where RCU does not watch, but no guard
/// of that kind.
fn tracepoints(btf: &Btf) -> Tracepoints {
    let has = |name: &str| btf.resolve_types_by_name(name).is_ok_and(|found| !found.is_empty());
    if has("tracepoint_srcu_srcu_data") && has("class_srcu_fast_notrace_t") {
        Tracepoints::Preemptible
    } else {
        Tracepoints::Whole
    }
}

/// Tells the form of the exit tracepoint by the arguments of its typedef: the context, the task, and since
/// Linux 6.16 `group_dead`.
fn exit_hook(btf: &Btf) -> Result<ExitHook, LayoutError> {
    const NAME: &str = "btf_trace_sched_process_exit";
    let unknown = || LayoutError::Prototype("sched_process_exit");
    for found in btf.resolve_types_by_name(NAME).map_err(|_| unknown())? {
        let Type::Typedef(found) = found else { continue };
        let Ok(Type::Ptr(pointer)) = btf.resolve_chained_type(&found) else { continue };
        let Ok(Type::FuncProto(prototype)) = btf.resolve_chained_type(&pointer) else { continue };
        return match prototype.parameters.len() {
            2 => Ok(ExitHook::Latch),
            3 => Ok(ExitHook::GroupDead),
            _ => Err(unknown()),
        };
    }
    Err(unknown())
}
