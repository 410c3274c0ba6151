//! The eBPF object inside this binary.

/// The bytes of the eBPF object, aligned for aya; `None` if this binary was built without one.
///
/// `cargo xtask build-ebpf` makes the object, and the next build of this crate embeds it.
#[must_use]
pub fn embedded() -> Option<&'static [u8]> {
    #[cfg(no_bpf_object)]
    return None;
    #[cfg(not(no_bpf_object))]
    Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-loop-ebpf.o")))
}
