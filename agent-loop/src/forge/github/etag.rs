//! Answers that are kept, each with its tag: asked again with the tag, an unchanged one costs nothing. [pure]

use std::collections::BTreeMap;

use hyper::body::Bytes;

/// An answer that was kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its tag.
    pub(super) tag: String,
    /// Its body.
    pub(super) body: Bytes,
    /// The page after it. An answer "not modified" does not always name it.
    pub(super) next: Option<String>,
}

/// The kept answers by URL, at most so many bytes of them: the one longest unused goes first.
#[derive(Debug)]
pub(super) struct Etags {
    kept: BTreeMap<String, (u64, Kept)>,
    bytes: usize,
    most: usize,
    turn: u64,
}

impl Etags {
    pub(super) const fn new(most: usize) -> Self {
        Self { kept: BTreeMap::new(), bytes: 0, most, turn: 0 }
    }

    /// The answer of this URL.
    pub(super) fn get(&mut self, url: &str) -> Option<Kept> {
        self.turn += 1;
        let (used, kept) = self.kept.get_mut(url)?;
        *used = self.turn;
        Some(kept.clone())
    }

    /// Keeps an answer, unless it alone would take a quarter of the room.
    pub(super) fn keep(&mut self, url: &str, answer: Kept) {
        self.forget(url);
        let size = size(url, &answer);
        if size > self.most / 4 {
            return;
        }
        while self.bytes + size > self.most {
            let Some(oldest) = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(url, _)| url.clone()) else {
                break;
            };
            self.forget(&oldest);
        }
        self.turn += 1;
        self.bytes += size;
        self.kept.insert(url.to_owned(), (self.turn, answer));
    }

    pub(super) fn forget(&mut self, url: &str) {
        if let Some((_, answer)) = self.kept.remove(url) {
            self.bytes -= size(url, &answer);
        }
    }
}

fn size(url: &str, answer: &Kept) -> usize {
    // What the map itself takes, roughly.
    const OVERHEAD: usize = 256;
    OVERHEAD + url.len() + answer.tag.len() + answer.body.len() + answer.next.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Kept {
        Kept { tag: "t".to_owned(), body: vec![0; bytes].into(), next: None }
    }

    #[test]
    fn the_answer_that_was_not_used_for_longest_goes_first() {
        let mut etags = Etags::new(5_100);
        for url in ["a", "b", "c", "e"] {
            etags.keep(url, answer(1_000));
        }
        assert!(etags.get("a").is_some());
        etags.keep("d", answer(1_000));
        assert!(etags.get("b").is_none(), "the others are newer, a was used");
        assert!(etags.get("a").is_some() && etags.get("c").is_some() && etags.get("d").is_some());
    }

    #[test]
    fn the_room_is_never_overdrawn_and_is_given_back() {
        let mut etags = Etags::new(10_000);
        for round in 0..200_usize {
            etags.keep(&format!("{}", round % 37), answer(round * 13 % 3_000));
            assert!(etags.bytes <= 10_000, "{}", etags.bytes);
        }
        for url in 0..37 {
            etags.forget(&url.to_string());
        }
        assert_eq!((etags.bytes, etags.kept.len()), (0, 0));
        etags.keep("large", answer(5_000));
        assert!(etags.get("large").is_none(), "one answer must not push out all others");
    }
}
