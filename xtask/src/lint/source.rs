//! A Rust file as its tokens: comments are gone, test-only items are marked, imports are spelled out.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A token, flat: a group is its opening sign, its tokens and its closing sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// As written; a string literal with its quotes.
    pub(crate) text: String,
    /// Where, counted from 1.
    pub(crate) line: usize,
    /// Whether it belongs to an item under `#[cfg(test)]`.
    pub(crate) test: bool,
    /// Whether it is an identifier or keyword.
    pub(crate) ident: bool,
}

/// A path like `std::fs::read`, as used or as imported, groups in imports taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathUse {
    /// Its segments.
    pub(crate) segments: Vec<String>,
    /// The line of its first token.
    pub(crate) line: usize,
    /// Whether it is in test-only code.
    pub(crate) test: bool,
}

/// A file of Rust.
pub(crate) struct Source {
    /// All its tokens.
    pub(crate) tokens: Vec<Token>,
    /// All its paths.
    pub(crate) paths: Vec<PathUse>,
}

impl Source {
    /// Splits `text` into tokens.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let stream: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
        let mut tokens = Vec::new();
        flatten(stream, false, &mut tokens);
        let paths = paths(&tokens);
        Ok(Self { tokens, paths })
    }

    /// Takes the whole file as test-only.
    pub(crate) fn mark_as_test(&mut self) {
        self.tokens.iter_mut().for_each(|it| it.test = true);
        self.paths.iter_mut().for_each(|it| it.test = true);
    }

    /// The names of modules that are declared here, in files of their own, for tests only.
    pub(crate) fn test_modules(&self) -> Vec<&str> {
        let declared = self.tokens.windows(3).filter_map(|it| match it {
            [word, name, end] if word.test && word.ident && word.text == "mod" && end.text == ";" => Some(&*name.text),
            _ => None,
        });
        declared.collect()
    }

    /// How many lines test-only items span.
    pub(crate) fn test_lines(&self) -> usize {
        let mut count = 0;
        for run in self.tokens.chunk_by(|a, b| a.test == b.test).filter(|run| run.iter().all(|it| it.test)) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                count += last.line - first.line + 1;
            }
        }
        count
    }
}

fn flatten(stream: TokenStream, inherited: bool, out: &mut Vec<Token>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    // Once `#[cfg(test)]` is met, everything up to the end of its item is test-only.
    let mut in_test_item = false;
    for (at, tree) in trees.iter().enumerate() {
        in_test_item |= is_cfg_test(&trees, at);
        let test = inherited || in_test_item;
        let token = |text: &str, line: usize, ident: bool| Token { text: text.to_owned(), line, test, ident };
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = signs(group.delimiter());
                out.push(token(open, group.span_open().start().line, false));
                flatten(group.stream(), test, out);
                out.push(token(close, group.span_close().end().line, false));
            }
            TokenTree::Ident(ident) => out.push(token(&ident.to_string(), ident.span().start().line, true)),
            TokenTree::Punct(punct) => {
                out.push(token(&punct.as_char().to_string(), punct.span().start().line, false));
            }
            TokenTree::Literal(literal) => {
                out.push(token(&literal.to_string(), literal.span().start().line, false));
            }
        }
        if ends_item(tree) {
            in_test_item = false;
        }
    }
}

/// Whether `#[cfg(test)]` begins at `at`.
fn is_cfg_test(trees: &[TokenTree], at: usize) -> bool {
    let (Some(TokenTree::Punct(hash)), Some(TokenTree::Group(attribute))) = (trees.get(at), trees.get(at + 1)) else {
        return false;
    };
    let written: String = attribute.stream().to_string().split_whitespace().collect();
    hash.as_char() == '#' && written == "cfg(test)"
}

fn ends_item(tree: &TokenTree) -> bool {
    match tree {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

fn signs(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

fn paths(tokens: &[Token]) -> Vec<PathUse> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        // `use<…>` in a bound imports nothing: it names what an `impl` captures.
        let import = token.ident && token.text == "use" && text(tokens, at + 1) != "<";
        let starts = token.ident && !import && !follows_separator(tokens, at);
        at = match (import, starts) {
            (true, _) => tree(tokens, at + 1, &[], &mut found),
            (false, true) => plain(tokens, at, &mut found),
            (false, false) => at + 1,
        };
    }
    found
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |it| it.text.as_str())
}

fn separator(tokens: &[Token], at: usize) -> bool {
    text(tokens, at) == ":" && text(tokens, at + 1) == ":"
}

fn follows_separator(tokens: &[Token], at: usize) -> bool {
    at >= 2 && separator(tokens, at - 2)
}

/// Reads `a::b::c` from an identifier on; returns where it ends.
fn plain(tokens: &[Token], from: usize, found: &mut Vec<PathUse>) -> usize {
    let mut segments = Vec::new();
    let mut at = from;
    while let Some(token) = tokens.get(at).filter(|it| it.ident) {
        segments.push(token.text.clone());
        at += 1;
        if !separator(tokens, at) || !tokens.get(at + 2).is_some_and(|it| it.ident) {
            break;
        }
        at += 2;
    }
    push(tokens, from, segments, found);
    at
}

/// Reads one tree of an import, `a::{b, c::*, d as e}`, below `prefix`; returns where it ends.
fn tree(tokens: &[Token], from: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = from;
    loop {
        match text(tokens, at) {
            ":" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text(tokens, at), "}" | "") {
                    at = tree(tokens, at, &segments, found);
                    at += usize::from(text(tokens, at) == ",");
                }
                return at + 1;
            }
            "as" => at += 2,
            "," | "}" | ";" | "" => break,
            segment => {
                if segment != "self" || segments.is_empty() {
                    segments.push(segment.to_owned());
                }
                at += 1;
            }
        }
    }
    push(tokens, from, segments, found);
    at
}

fn push(tokens: &[Token], from: usize, segments: Vec<String>, found: &mut Vec<PathUse>) {
    if let Some(first) = tokens.get(from) {
        found.push(PathUse { segments, line: first.line, test: first.test });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of(text: &str) -> Vec<String> {
        Source::parse(text).expect("tokens").paths.iter().map(|it| it.segments.join("::")).collect()
    }

    #[test]
    fn imports_are_taken_apart() {
        let found = paths_of("use std::{fs::{self, File as F}, io::*};\nfn f() { g() }");
        assert_eq!(found[..3], ["std::fs", "std::fs::File", "std::io::*"]);
        assert!(found.contains(&"g".to_owned()));
    }

    #[test]
    fn what_a_bound_captures_is_no_import() {
        assert!(paths_of("fn f() -> impl Fn() + use<> { g() }").contains(&"g".to_owned()));
    }

    #[test]
    fn paths_in_code_and_macros_are_found_and_comments_are_not() {
        let found = paths_of("// std::fs::a\nfn f() { println!(\"{}\", std::fs::read(\"std::net\")) }");
        assert!(found.contains(&"std::fs::read".to_owned()));
        assert!(!found.iter().any(|it| it.contains("net") || it.contains("::a")));
    }

    #[test]
    fn test_only_items_are_marked_up_to_their_end() {
        let source = Source::parse("fn a() {}\n#[cfg(test)]\nmod t {\n  fn b() {}\n}\nfn c() {}").expect("tokens");
        let is_test = |name: &str| source.tokens.iter().find(|it| it.text == name).map(|it| it.test);
        assert_eq!((is_test("a"), is_test("b"), is_test("c")), (Some(false), Some(true), Some(false)));
        assert_eq!(source.test_lines(), 4);
    }
}
