//! Text of a log on its way into a page: nothing of it is markup, and nothing of it is invisible.
//!
//! A log holds what an agent chose to call itself. [`Html`] takes markup only as a literal of this program; all that
//! comes from elsewhere goes in through [`Html::text`].

use std::fmt::{Display, Write as _};

/// A page that grows.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Puts markup: a literal, so that no text of a log can be passed here.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Puts text, for an element or inside a quoted attribute.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing into a String does not fail.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    /// Puts text of a log into an element: isolated, so that letters written from right to left move no neighbour.
    pub fn foreign(&mut self, text: impl Display) -> &mut Self {
        self.raw("<bdi>").text(text).raw("</bdi>")
    }

    /// Puts a place on the time axis as a percentage, three digits after the point.
    pub fn percent(&mut self, share: f64) -> &mut Self {
        let text = format!("{:.3}", share * 100.0);
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        self.0.push_str(text);
        self.0.push('%');
        self
    }

    /// The page.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

struct Escaping<'a>(&'a mut String);

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('⏎'),
                letter if hides(letter) => write!(self.0, "⟨U+{:04X}⟩", u32::from(letter))?,
                letter => self.0.push(letter),
            }
        }
        Ok(())
    }
}

/// Whether a reader would not see this character, or would see others in another order because of it.
fn hides(letter: char) -> bool {
    letter.is_control()
        || matches!(u32::from(letter),
            0xAD | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E
            | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        let mut page = Html::default();
        page.text(text);
        page.into_string()
    }

    #[test]
    fn markup_in_text_is_text() {
        assert_eq!(page("<script>alert(1)</script>"), "&lt;script&gt;alert(1)&lt;/script&gt;");
        assert_eq!(page(r#"" onload='x' &amp;"#), "&quot; onload=&#39;x&#39; &amp;amp;");
    }

    #[test]
    fn what_a_reader_would_not_see_is_named() {
        assert_eq!(page("a\u{202e}b\u{0}c\u{1b}[31m\td\ne"), "a⟨U+202E⟩b⟨U+0000⟩c⟨U+001B⟩[31m⟨U+0009⟩d⏎e");
        assert_eq!(page("\u{200b}\u{2066}\u{feff}\u{e0041}\u{85}"), "⟨U+200B⟩⟨U+2066⟩⟨U+FEFF⟩⟨U+E0041⟩⟨U+0085⟩");
    }

    #[test]
    fn letters_of_all_scripts_stay() {
        assert_eq!(page("größe 漢字 עברית 🦀"), "größe 漢字 עברית 🦀");
    }

    #[test]
    fn a_percentage_has_no_needless_digits() {
        for (share, text) in [(0.0, "0%"), (1.0, "100%"), (0.125, "12.5%"), (1.0 / 3.0, "33.333%")] {
            let mut page = Html::default();
            page.percent(share);
            assert_eq!(page.into_string(), text);
        }
    }
}
