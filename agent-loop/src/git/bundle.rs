//! The head of a bundle that an agent made, read strictly. [pure]
//!
//! gitformat-bundle(5): a signature, capabilities, prerequisites, refs, an empty line, a pack.

use crate::forge::{Branch, Sha};

/// The most bytes of a head.
pub(super) const LONGEST: usize = 64 << 10;
/// The most prerequisites: one for each parent of the first commit, and for each line of history that was merged.
const MOST_NEEDED: usize = 500;

/// The head of a bundle that holds one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// What the branch points at, as it says.
    pub(super) at: Sha,
    /// Where its pack begins, bytes from its beginning.
    pub(super) pack: u64,
    /// How many objects the pack says that it holds.
    pub(super) objects: u32,
}

/// Reads the beginning of a bundle that has to hold exactly `branch`; else says why it is refused.
pub(super) fn read(bytes: &[u8], branch: &Branch) -> Result<Head, String> {
    if bytes.is_empty() {
        return Err("the bundle is empty".to_owned());
    }
    let end = bytes.windows(2).take(LONGEST).position(|it| it == b"\n\n").ok_or("the bundle's head has no end")?;
    let text = bytes.get(..end).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| "the bundle's head is no text")?;
    let mut lines = text.split('\n').peekable();
    let digits = match lines.next() {
        Some("# v2 git bundle") => 40,
        Some("# v3 git bundle") => match lines.next_if(|line| line.starts_with('@')) {
            Some("@object-format=sha256") => 64,
            Some("@object-format=sha1") | None => 40,
            Some(_) => return Err("the bundle needs a capability that is not known".to_owned()),
        },
        Some(_) | None => return Err("it is not a bundle".to_owned()),
    };
    let id = |text: &str| text.parse::<Sha>().ok().filter(|_| text.len() == digits);
    let mut needed = 0;
    while let Some(line) = lines.next_if(|line| line.starts_with('-')) {
        needed += 1;
        let line = line.get(1..).unwrap_or_default();
        id(line.split(' ').next().unwrap_or_default()).ok_or("a prerequisite of the bundle is no commit")?;
    }
    if needed > MOST_NEEDED {
        return Err(format!("the bundle has {needed} prerequisites, more than {MOST_NEEDED}"));
    }
    let refs: Vec<&str> = lines.collect();
    let [line] = refs[..] else {
        return Err(format!("the bundle holds {} refs, not one", refs.len()));
    };
    let (at, name) = line.split_once(' ').ok_or("a ref of the bundle has no name")?;
    if name != format!("refs/heads/{branch}") {
        let shown: String = name.chars().take(100).collect();
        return Err(format!("the bundle holds {shown:?}, not branch {branch}"));
    }
    let at = id(at).ok_or("the branch in the bundle is no commit")?;
    let start = end + 2;
    let pack = bytes.get(start..start + 12).ok_or("the bundle ends before its pack")?;
    let word = |from: usize| pack.get(from..from + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_be_bytes);
    if pack.get(..4) != Some(b"PACK") || !matches!(word(4), 2 | 3) {
        return Err("the bundle holds no pack".to_owned());
    }
    Ok(Head { at, pack: start as u64, objects: word(8) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    fn branch() -> Branch {
        "issue-1-fix".parse().expect("a branch")
    }

    fn bundle(head: &str) -> Vec<u8> {
        let mut bytes = format!("{head}\n\n").into_bytes();
        bytes.extend_from_slice(b"PACK\0\0\0\x02\0\0\0\x03and so on");
        bytes
    }

    #[test]
    fn one_branch_is_read_with_its_prerequisites() {
        for head in [
            format!("# v2 git bundle\n{ID} refs/heads/issue-1-fix"),
            format!("# v2 git bundle\n-{ID} a comment\n-{ID}\n{ID} refs/heads/issue-1-fix"),
            format!("# v3 git bundle\n@object-format=sha1\n{ID} refs/heads/issue-1-fix"),
        ] {
            let read = read(&bundle(&head), &branch()).expect("a good head");
            assert_eq!((read.at.as_str(), read.pack, read.objects), (ID, head.len() as u64 + 2, 3));
        }
    }

    #[test]
    fn whatever_else_a_head_says_is_refused() {
        for head in [
            "# v2 git bundle".to_owned(),
            "# v2 git bundle\n".to_owned(),
            format!("# v4 git bundle\n{ID} refs/heads/issue-1-fix"),
            format!("# v2 git bundle\n{ID} refs/heads/issue-1-fix\n{ID} refs/heads/main"),
            format!("# v2 git bundle\n{ID} refs/heads/issue-1-fix\n{ID} refs/replace/{ID}"),
            format!("# v2 git bundle\n{ID} refs/heads/issue-1-fix\n-{ID}"),
            format!("# v2 git bundle\n{ID} refs/heads/main"),
            format!("# v2 git bundle\n{ID} HEAD"),
            format!("# v2 git bundle\n{ID} refs/heads/issue-1-fix\0"),
            format!("# v2 git bundle\n{ID}0 refs/heads/issue-1-fix"),
            format!("# v2 git bundle\n--upload-pack=id refs/heads/issue-1-fix\n{ID} refs/heads/issue-1-fix"),
            format!("# v3 git bundle\n@filter=blob:none\n{ID} refs/heads/issue-1-fix"),
            format!("# v3 git bundle\n@object-format=sha256\n{ID} refs/heads/issue-1-fix"),
            format!("# v2 git bundle\n{}{ID} refs/heads/issue-1-fix", format!("-{ID}\n").repeat(MOST_NEEDED + 1)),
        ] {
            assert!(read(&bundle(&head), &branch()).is_err(), "{head:.200}");
        }
        let good = bundle(&format!("# v2 git bundle\n{ID} refs/heads/issue-1-fix"));
        let pack = good.len() - "and so on".len();
        for cut in 0..pack {
            assert!(read(good.get(..cut).unwrap_or_default(), &branch()).is_err(), "cut at {cut}");
        }
        assert!(read(&good[..pack], &branch()).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, head in "# v[23] git bundle\n([-@]?[0-9a-f]{0,40} ?[a-z/]*\n)*\n") {
            let _ = read(&bytes, &branch());
            let _ = read(head.as_bytes(), &branch());
        }
    }
}
