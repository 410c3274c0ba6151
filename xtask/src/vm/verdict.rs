//! The program that tells QEMU the verdict: a few instructions, since Debian's cloud kernels have no `/dev/port`.

/// The port of QEMU's isa-debug-exit.
const PORT: u32 = 0xf4;
const BASE: u64 = 0x40_0000;
/// The header of an ELF file and of its one segment.
const HEADERS: u64 = 64 + 56;

/// A static x86-64 program that writes `value` to the port; QEMU ends with `value << 1 | 1`.
pub(super) fn program(value: u8) -> Vec<u8> {
    let mut code = Vec::new();
    let mut load = |opcode: u8, value: u32, then: &[u8]| {
        code.push(opcode);
        code.extend(value.to_le_bytes());
        code.extend(then);
    };
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    // ioperm(PORT, 4, 1)
    load(0xbf, PORT, &[]);
    load(0xbe, 4, &[]);
    load(0xba, 1, &[]);
    load(0xb8, 173, &SYSCALL);
    // out dx, al
    load(0xba, PORT, &[]);
    load(0xb8, u32::from(value), &[0xee]);
    // exit(1): it is here only if QEMU did not end.
    load(0xbf, 1, &[]);
    load(0xb8, 60, &SYSCALL);

    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|it| elf.extend(it.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|it| elf.extend(it.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|it| elf.extend(it.to_le_bytes()));
    // An executable of x86-64, its entry, its program header behind this one, and no sections.
    half(&mut elf, &[2, 62]);
    word(&mut elf, &[1]);
    long(&mut elf, &[BASE + HEADERS, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 64, 0, 0]);
    // One segment, read and executed.
    word(&mut elf, &[1, 5]);
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSegment};

    #[test]
    fn the_program_is_an_elf_file_whose_entry_is_its_code() {
        let bytes = super::program(16);
        let file = object::File::parse(&*bytes).expect("an ELF file");
        assert_eq!(file.entry(), super::BASE + super::HEADERS);
        let segment = file.segments().next().expect("a segment");
        assert_eq!(segment.size(), bytes.len() as u64);
    }
}
