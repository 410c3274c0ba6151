//! Reading one key of the file: what stands there is checked, and a mistake told with its key and line. [pure]

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::config::ConfigError;

/// What may be written, and where.
pub(super) type Written<T> = Option<Spanned<T>>;

/// The text that is read, and the name it is told by.
pub(super) struct Context<'a> {
    pub(super) text: &'a str,
    pub(super) name: &'a str,
}

impl Context<'_> {
    pub(super) fn directory(&self, key: &str, written: Written<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
        self.checked(key, written, |path| {
            let wanted = "write an absolute path, without `..`";
            if is_plain(path) { Ok(()) } else { Err(wanted.to_owned()) }
        })
    }

    pub(super) fn list(
        &self,
        key: &str,
        written: Option<Vec<Spanned<String>>>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(written) = written else { return Ok(None) };
        let one = |it: Spanned<String>| match check(it.get_ref()) {
            Ok(()) => Ok(it.into_inner()),
            Err(why) => Err(self.wrong(key, &it.span(), format!("{:?}: {why}", it.get_ref()))),
        };
        written.into_iter().map(one).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn checked<T>(
        &self,
        key: &str,
        written: Written<T>,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(it) = written else { return Ok(None) };
        match check(it.get_ref()) {
            Ok(()) => Ok(Some(it.into_inner())),
            Err(why) => Err(self.wrong(key, &it.span(), why)),
        }
    }

    pub(super) fn read<T>(
        &self,
        key: &str,
        written: Written<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(it) = written else { return Ok(None) };
        read(it.get_ref()).map(Some).map_err(|why| self.wrong(key, &it.span(), format!("{:?}: {why}", it.get_ref())))
    }

    pub(super) fn wrong(&self, key: &str, span: &Range<usize>, why: String) -> ConfigError {
        ConfigError { file: self.name.to_owned(), line: Some(self.line(span.start)), key: Some(key.to_owned()), why }
    }

    /// What the TOML itself is wrong by: a key nobody knows, a value of the wrong type, the form.
    pub(super) fn of_toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map(|span| span.start);
        // The library's own text draws a picture of several lines; its message is one.
        let why = error.message().replace('\n', "; ");
        ConfigError {
            file: self.name.to_owned(),
            line: start.map(|start| self.line(start)),
            key: start.and_then(|start| self.key_at(start)),
            why,
        }
    }

    /// The number of the line, from 1.
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// The key that the line at this place sets, with its section, as far as the text shows it.
    fn key_at(&self, at: usize) -> Option<String> {
        let number = self.line(at);
        let (key, _) = self.text.lines().nth(number - 1)?.split_once('=')?;
        let before: Vec<&str> = self.text.lines().take(number - 1).collect();
        let header = before.iter().rev().find(|line| line.trim_start().starts_with('['));
        let section = header.map(|line| line.trim().trim_matches(['[', ']']));
        let key = key.trim();
        Some(section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}")))
    }
}

pub(super) fn is_plain(path: &Path) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(normal) && path.file_name().is_some() && !has_control(path)
}

pub(super) fn has_control(path: &Path) -> bool {
    path.to_string_lossy().chars().any(char::is_control)
}

pub(super) fn known_name(name: &str) -> Result<(), String> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/';
    if name.is_empty() || name.contains(odd) { Err("write the name of a user or group".to_owned()) } else { Ok(()) }
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like \"90s\", \"10m\" or \"1h 30m\""))
}

/// At least a second.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    if span.as_secs() > 0 { Ok(span) } else { Err("write at least \"1s\"".to_owned()) }
}

/// A name on a forge, or a word of a command: one line that says something.
pub(super) fn word(text: &str) -> Result<(), String> {
    let good = !text.trim().is_empty() && text.len() <= 1000 && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err("write one line of text".to_owned()) }
}

pub(super) fn at_least(shortest: Duration, text: &str) -> Result<Duration, String> {
    let wanted = || format!("write {} or more", humantime::format_duration(shortest));
    span(text).and_then(|span| if span >= shortest { Ok(span) } else { Err(wanted()) })
}

pub(super) fn some_time(span: Duration) -> Result<Duration, String> {
    if span.is_zero() { Err("write more than 0, or leave it out for no limit".to_owned()) } else { Ok(span) }
}
