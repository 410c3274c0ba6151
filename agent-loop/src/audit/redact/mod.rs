//! What is secret is replaced before a line is made: no hash covers it, and no file of ours holds it (I22). [pure]
//!
//! Inside: the rules, the names and arguments that promise a secret, the keyed tag. Not inside: where the key is kept.
//! Called by whoever writes a text that an agent or a person chose.
//!
//! A rule that hits too much costs a word of evidence; one that hits too little costs a secret. In doubt it hits.

mod names;
mod shapes;
mod tag;
mod words;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

pub use names::UserName;
pub use shapes::{Policy, UserPattern};
pub use tag::TagKey;

/// How often a text is looked at again after something in it was replaced, at most: a mark may bare what stood beside it,
/// and that again. It ends as soon as nothing is found.
const ROUNDS: usize = 32;

/// A part of a text that a rule found to be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    at: Range<usize>,
    rule: &'static str,
}

static OURS: OnceLock<Redactor> = OnceLock::new();

/// Settles by which policy and key this process redacts, before it records anything; the first to say it holds.
pub fn settle(redactor: Redactor) {
    let _ = OURS.set(redactor);
}

/// The redactor of this process: as it was settled, else the built-in rules under a key of the moment.
#[must_use]
pub fn ours() -> Redactor {
    OURS.get().cloned().unwrap_or_else(Redactor::passing)
}

/// A message for people as it may be printed: what stands on a terminal often ends in a log.
#[must_use]
pub fn said(text: &str) -> String {
    ours().text(text).into_owned()
}

/// One thing that was replaced, for people: the secret itself is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number of the word, from 0.
    pub word: usize,
    /// The rule.
    pub rule: &'static str,
    /// How many bytes were replaced.
    pub bytes: usize,
}

/// Replaces secrets by marks: `‹redacted:RULE:TAG›`.
#[derive(Clone)]
pub struct Redactor {
    policy: Arc<Policy>,
    key: TagKey,
}

impl Redactor {
    /// By this policy, with tags under this key.
    #[must_use]
    pub const fn new(policy: Arc<Policy>, key: TagKey) -> Self {
        Self { policy, key }
    }

    /// By the rules that are built in, with tags under a key that nobody keeps.
    #[must_use]
    pub fn passing() -> Self {
        Self::new(Policy::built_in(), TagKey::passing())
    }

    /// The SHA-256 of the policy, in hexadecimal digits.
    #[must_use]
    pub fn policy_sha256(&self) -> &str {
        self.policy.sha256()
    }

    /// One text: a path, a reason, a message.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.policy.may_hold_any(text) {
            return Cow::Borrowed(text);
        }
        let mut text = Cow::Borrowed(text);
        for _ in 0..ROUNDS {
            let spans = self.outside_marks(&text, words::of_text(&self.policy, &text));
            if spans.is_empty() {
                break;
            }
            text = Cow::Owned(self.replaced(&text, &spans));
        }
        text
    }

    /// A text of our own type, in place.
    pub fn string(&self, text: &mut String) {
        if let Cow::Owned(changed) = self.text(text) {
            *text = changed;
        }
    }

    /// The words of a command line; `cut` says that its end is missing.
    #[must_use]
    pub fn words(&self, words: &[String], cut: bool) -> Vec<String> {
        let mut words = words.to_vec();
        self.look(&mut words, cut, |_| {});
        words
    }

    /// What would be replaced in these words, and the words afterwards.
    #[must_use]
    pub fn explain(&self, words: &[String]) -> (Vec<Found>, Vec<String>) {
        let (mut found, mut words) = (Vec::new(), words.to_vec());
        self.look(&mut words, false, |it| found.push(it));
        (found, words)
    }

    fn look(&self, words: &mut [String], cut: bool, mut found: impl FnMut(Found)) {
        if !cut && !words.iter().any(|word| self.policy.may_hold_any(word)) {
            return;
        }
        for _ in 0..ROUNDS {
            let mut changed = false;
            let spans = words::spans(&self.policy, words, cut);
            for (number, (word, spans)) in words.iter_mut().zip(spans).enumerate() {
                let spans = self.outside_marks(word, spans);
                for Span { at, rule } in &spans {
                    found(Found { word: number, rule, bytes: at.len() });
                }
                if !spans.is_empty() {
                    *word = self.replaced(word, &spans);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
    }

    /// Joins what overlaps, and leaves out what is replaced already.
    fn outside_marks(&self, text: &str, mut spans: Vec<Span>) -> Vec<Span> {
        if spans.is_empty() {
            return spans;
        }
        let marks = self.policy.marks(text);
        for span in &mut spans {
            for mark in &marks {
                if overlap(&span.at, mark) && !within(&span.at, mark) {
                    span.at = span.at.start.min(mark.start)..span.at.end.max(mark.end);
                }
            }
        }
        spans.retain(|span| !span.at.is_empty() && !marks.iter().any(|mark| within(&span.at, mark)));
        spans.retain(|span| !is_all_marks(text, &span.at, &marks));
        spans.sort_by_key(|span| (span.at.start, std::cmp::Reverse(span.at.end)));
        let mut joined: Vec<Span> = Vec::new();
        for span in spans {
            match joined.last_mut() {
                Some(last) if span.at.start < last.at.end => last.at.end = last.at.end.max(span.at.end),
                Some(_) | None => joined.push(span),
            }
        }
        joined
    }

    fn replaced(&self, text: &str, spans: &[Span]) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for Span { at, rule } in spans {
            out.push_str(text.get(from..at.start).unwrap_or_default());
            let secret = text.get(at.clone()).unwrap_or_default();
            out.push_str(&tag::mark(rule, &self.key.tag(bare(secret))));
            from = at.end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        out
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("policy", &self.policy.sha256()).finish_non_exhaustive()
    }
}

/// The value without the quotes around it, so that equal secrets have equal tags.
fn bare(secret: &str) -> &str {
    let inner = |quote: char| secret.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(secret)
}

const fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

const fn within(inner: &Range<usize>, outer: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Whether nothing but marks, quotes and blanks is in this part of the text.
fn is_all_marks(text: &str, part: &Range<usize>, marks: &[Range<usize>]) -> bool {
    let inside: Vec<_> = marks.iter().filter(|mark| within(mark, part)).collect();
    let mut from = part.start;
    let mut between = String::new();
    for mark in &inside {
        between.push_str(text.get(from..mark.start).unwrap_or_default());
        from = mark.end;
    }
    between.push_str(text.get(from..part.end).unwrap_or_default());
    !inside.is_empty() && between.chars().all(|it| it.is_whitespace() || matches!(it, '"' | '\'' | '\\'))
}
