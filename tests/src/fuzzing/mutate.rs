//! Changed inputs from a seed, the same each time.

/// What readers of JSON, TOML and HTTP stumble over.
const WORDS: [&[u8]; 24] = [
    b"0",
    b"-1",
    b"1",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9223372036854775807",
    b"4294967295",
    b"4294967296",
    b"1e999",
    b"null",
    b"true",
    b"\"\"",
    b"{}",
    b"[]",
    b"\\u0000",
    b"\\ud800",
    b"\n",
    b"\r\n\r\n",
    b"\"",
    b"'",
    b"=",
    b"{",
    b"]",
    b"\xff",
];

/// A source of changed inputs.
#[derive(Clone, Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// A source with this seed, which is not 0.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    fn next(&mut self) -> u64 {
        // xorshift64 of Marsaglia, 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `most`; 0 for 0.
    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap_or(0)
    }

    /// One of these with one to four changes.
    pub fn change(&mut self, of: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = of.get(self.below(of.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            self.once(&mut bytes, of);
        }
        bytes
    }

    fn once(&mut self, bytes: &mut Vec<u8>, of: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let rest = bytes.len() - at;
        match self.below(8) {
            0 if rest > 0 => bytes[at] ^= 1 << self.below(8),
            1 if rest > 0 => bytes[at] = self.next().to_le_bytes()[0],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + self.below(rest + 1))),
            4 => self.number(bytes, at),
            5 => {
                let count = self.below(rest.min(64) + 1);
                let part = bytes[at..at + count].to_vec();
                drop(bytes.splice(at..at, part));
            }
            6 => {
                let other = of.get(self.below(of.len())).map(Vec::as_slice).unwrap_or_default();
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
        }
    }

    /// Puts another word in the place of the next number.
    fn number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(begin) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
        let digits = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        drop(bytes.splice(begin..begin + digits, WORDS[self.below(WORDS.len())].iter().copied()));
    }
}
