//! What the eBPF program says on its error paths: off by default, and then not even written in the kernel.

use aya::Ebpf;
use aya_log::{EbpfLogger, Error};

/// The value of the eBPF program's global: 0 is silence, else everything up to this level.
pub(super) fn level(on: bool) -> u8 {
    if on { aya_log::Level::Trace as u8 } else { 0 }
}

/// Reads the messages and hands them to whatever logger the program has set up (`log::set_logger`).
pub(super) struct Printer(EbpfLogger<Forward>);

impl Printer {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        EbpfLogger::init_with_logger(ebpf, Forward).map(Self)
    }

    pub(super) fn print(&mut self) {
        self.0.flush();
    }
}

/// A logger that knows no level of its own: the eBPF program speaks only where something went wrong.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        log::logger().log(record);
    }

    fn flush(&self) {}
}
