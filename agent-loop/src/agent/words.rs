//! Words of others, made fit to be shown: without what nobody sees, and not too many. [pure]

/// How much of a text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its beginning.
    Beginning,
    /// Its end, where logs say what went wrong.
    End,
}

/// A text without control characters other than line ends and tabs, and without characters that hide or reorder others;
/// at most `most` bytes of it, with a note where it was cut.
pub(super) fn clean(text: &str, most: usize, keep: Keep) -> String {
    let text: String = text.chars().filter(|c| matches!(c, '\n' | '\t') || !unseen(*c)).collect();
    if text.len() <= most {
        return text;
    }
    let whole = text.len();
    match keep {
        Keep::Beginning => {
            let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let kept = text.get(..end).unwrap_or_default();
            format!("{kept}\n[cut by agent-loop: these are the first {end} of {whole} bytes]")
        }
        Keep::End => {
            let begin = (whole - most..=whole).find(|at| text.is_char_boundary(*at)).unwrap_or(whole);
            let kept = text.get(begin..).unwrap_or_default();
            format!("[cut by agent-loop: these are the last {} of {whole} bytes]\n{kept}", whole - begin)
        }
    }
}

/// A text on one line, at most `most` characters of it.
pub(super) fn line(text: &str, most: usize) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || unseen(c)).filter(|it| !it.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// A character that does not show and changes what is read: controls, marks of direction, Unicode's tags.
fn unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_taken_out() {
        let text = "a\u{1b}[31mb\r\n\tc\u{0}\u{202e}d\u{e0041}\u{200b}e\u{7f}";
        assert_eq!(clean(text, 100, Keep::Beginning), "a[31mb\n\tcde");
        assert_eq!(line("  a \n b\u{7}c\t\u{202e}d ", 100), "a b c d");
        assert_eq!(line("abcdef", 3), "abc…");
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        let text = "ä".repeat(100);
        let first = clean(&text, 51, Keep::Beginning);
        assert!(first.starts_with(&"ä".repeat(25)) && first.contains("the first 50 of 200 bytes"), "{first}");
        let last = clean(&text, 51, Keep::End);
        assert!(last.ends_with(&"ä".repeat(25)) && last.contains("the last 50 of 200 bytes"), "{last}");
        assert_eq!(clean(&text, 200, Keep::End), text);
    }
}
