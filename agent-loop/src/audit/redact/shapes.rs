//! The policy: shapes of secrets, names that promise them, and what the configuration adds.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::{Captures, Regex, RegexBuilder};
use sha2::{Digest as _, Sha256};

use super::Span;
use super::names::{self, Promise, UserName};

/// How large a rule may become: enough for any that a person reads.
const RULE_SIZE: usize = 1 << 20;

/// A value as a shell or a person writes it: pieces with and without quotes, until a blank or an operator.
pub(super) const VALUE: &str =
    r#"(?:"(?:[^"\\]|\\.)*(?:"|\\?\z)|'[^']*(?:'|\z)|\\.|[^\s"'\\;|&<>()=:]|[^\s"'\\;|&<>()])+"#;

/// Where a value that follows `=` or `:` is secret by its name. The value itself is the last group.
const ASSIGNED: &str = r#"([A-Za-z0-9_.$\-]*[A-Za-z0-9_])(\]?\\?["']?)[ \t]*(=>|:=|==?|:)([ \t]*)((?:"(?:[^"\\]|\\.)*(?:"|\\?\z)|'[^']*(?:'|\z)|\\.|[^\s"'\\;|&<>():=])VALUE?)"#;

/// A rule on the shape of a text: name, what a text must hold for it to be tried (in small letters), expression, check.
type Rule = (&'static str, &'static [&'static str], &'static str, fn(&str, &Captures<'_>) -> bool);

/// The built-in shapes. In the expressions `~` stands for the mark of a byte that was no UTF-8, which may stand anywhere
/// in a secret. The first group, where there is one, is the secret. Lengths are at least so long, never at most: what is
/// longer than expected is replaced as a whole.
const RULES: &[Rule] = &[
    (
        "pem",
        &["-----begin"],
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\z)",
        always,
    ),
    ("age", &["age-secret-key"], r"AGE-SECRET-KEY-[A-Za-z0-9~-]{16,}", always),
    ("github", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"gh[pousr]_[A-Za-z0-9_~]{16,}", always),
    ("github", &["github_pat_"], r"github_pat_[A-Za-z0-9_~]{16,}", always),
    (
        "gitlab",
        &[
            "glpat-", "gldt-", "glrt-", "gloas-", "glptt-", "glcbt-", "glagent-", "glsoat-", "glft-", "glimt-",
            "glffct-",
        ],
        r"gl(?:pat|dt|rt|oas|ptt|cbt|agent|soat|ft|imt|ffct)-[A-Za-z0-9_.~-]{16,}",
        always,
    ),
    ("anthropic", &["sk-ant-"], r"sk-ant-[A-Za-z0-9_~-]{16,}", always),
    ("sk", &["sk-"], r"sk-[A-Za-z0-9_~-]{20,}", is_mixed),
    ("stripe", &["_live_", "_test_"], r"[sr]k_(?:live|test)_[A-Za-z0-9~]{16,}", always),
    ("stripe", &["whsec_"], r"whsec_[A-Za-z0-9+/~]{16,}=*", always),
    ("aws", &["akia", "asia", "abia", "acca"], r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9~]{16,}", always),
    ("slack", &["xox"], r"xox[abceoprs]-[A-Za-z0-9.~-]{10,}", always),
    ("slack", &["xapp-"], r"xapp-[A-Za-z0-9~-]{10,}", always),
    (
        "slack",
        &["hooks.slack.com/"],
        r"(?i)hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_+~-]+)",
        always,
    ),
    ("discord", &["/webhooks/"], r"(?i)discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/([A-Za-z0-9/_~-]+)", always),
    ("npm", &["npm_"], r"npm_[A-Za-z0-9~]{20,}", always),
    ("pypi", &["pypi-"], r"pypi-[A-Za-z0-9_~-]{32,}", is_mixed),
    ("google", &["aiza"], r"AIza[A-Za-z0-9_~-]{30,}", always),
    ("google", &["ya29."], r"ya29\.[A-Za-z0-9_.~-]{16,}", always),
    ("google", &["gocspx-"], r"GOCSPX-[A-Za-z0-9_~-]{16,}", always),
    ("huggingface", &["hf_"], r"hf_[A-Za-z0-9~]{20,}", always),
    ("vendor", &["dop_v1_", "doo_v1_", "dor_v1_"], r"do[opr]_v1_[a-f0-9~]{16,}", always),
    ("vendor", &["dckr_pat_", "dckr_oat_"], r"dckr_[op]at_[A-Za-z0-9_~-]{16,}", always),
    ("vendor", &["sg."], r"SG\.[A-Za-z0-9_~-]{16,}\.[A-Za-z0-9_~-]{16,}", always),
    ("vendor", &["hvs.", "hvb."], r"hv[sb]\.[A-Za-z0-9_~-]{20,}", always),
    ("vendor", &["atatt3"], r"ATATT3[A-Za-z0-9_=~-]{20,}", always),
    (
        "vendor",
        &["xai-", "gsk_", "pplx-", "nvapi-", "lin_api_"],
        r"(?:xai-|gsk_|pplx-|nvapi-|lin_api_)[A-Za-z0-9_~-]{24,}",
        always,
    ),
    ("jwt", &["eyj"], r"eyJ[A-Za-z0-9_=~-]{6,}(?:\.[A-Za-z0-9_=~-]*){1,4}", always),
    ("url", &["://"], r#"://([^\s/"'<>`]+)@"#, is_user_info),
    ("url", &["://"], r#"://([^\s/"'<>@:`]*:[^\s"'<>@`]+)@"#, is_user_info),
    (
        "header",
        &["authorization", "cookie"],
        r#"(?i)(?:authorization|cookie)\\?["']?[ \t]*:[ \t]*\\?["']?(?:(?:bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256)[ \t]+)?([^"'\r\n\\]+)"#,
        always,
    ),
    ("bearer", &["bearer"], r"(?i)bearer[ \t]+([A-Za-z0-9._~+/-]{8,}=*)", has_digit_or_is_long),
    ("basic", &["basic"], r"(?i)basic[ \t]+([A-Za-z0-9+/]{8,}={0,2})", is_pair_in_base64),
];

/// What has only begun where the text was cut off: shapes without their lengths.
const CUT_OFF: &str = r#"(?:gh[pousr]_|github_pat_|gl(?:pat|dt|rt|oas|ptt|cbt|agent|soat|ft|imt|ffct)-|sk-ant-|\bsk-|[sr]k_(?:live|test)_|whsec_|(?:AKIA|ASIA|ABIA|ACCA)|xox[abceoprs]-|xapp-|npm_|pypi-|AIza|ya29\.|GOCSPX-|hf_|do[opr]_v1_|dckr_[op]at_|SG\.|hv[sb]\.|ATATT3|xai-|gsk_|pplx-|nvapi-|lin_api_|AGE-SECRET-KEY-|eyJ)[A-Za-z0-9_.+/=~-]*\z|://[^\s/"'<>@]*:[^\s"'<>@]*\z|(?i:bearer|basic)[ \t]+\S*\z"#;

/// Names that promise a secret contain one of these.
const PROMISES: &[&str] = &[
    "pass", "pw", "secret", "token", "apikey", "key", "cred", "auth", "cookie", "jwt", "sig", "pat", "netrc", "bearer",
];

/// Programs that take a secret by an argument of one letter.
pub(super) const PROGRAMS: &[(&str, &[&str])] = &[
    ("curl", &["-u", "--user", "-U", "--proxy-user"]),
    ("sshpass", &["-p"]),
    ("mysql", &["-p"]),
    ("mysqldump", &["-p"]),
    ("mysqladmin", &["-p"]),
    ("mariadb", &["-p"]),
    ("redis-cli", &["-a"]),
    ("ldapsearch", &["-w"]),
    ("ldapmodify", &["-w"]),
    ("docker", &["-p"]),
    ("podman", &["-p"]),
    ("zip", &["-P"]),
    ("unzip", &["-P"]),
    ("7z", &["-p"]),
    ("smbclient", &["-U"]),
];

const fn always(_: &str, _: &Captures<'_>) -> bool {
    true
}

fn group<'t>(found: &Captures<'t>) -> &'t str {
    found.get(1).or_else(|| found.get(0)).map_or("", |it| it.as_str())
}

/// Capitals, small letters and digits in one: or small letters and digits, where it does not continue another word.
fn is_mixed(text: &str, found: &Captures<'_>) -> bool {
    let Some(whole) = found.get(0) else { return false };
    let has = |test: fn(&char) -> bool| whole.as_str().chars().any(|it| test(&it));
    let begins = !text.get(..whole.start()).unwrap_or_default().ends_with(|it: char| it.is_alphanumeric());
    let run = whole.as_str().split(['-', '_']).map(str::len).max().unwrap_or(0);
    run >= 16 && has(char::is_ascii_digit) && has(char::is_ascii_lowercase) && (has(char::is_ascii_uppercase) || begins)
}

fn has_digit_or_is_long(_: &str, found: &Captures<'_>) -> bool {
    group(found).contains(|it: char| it.is_ascii_digit()) || group(found).len() >= 20
}

fn is_pair_in_base64(_: &str, found: &Captures<'_>) -> bool {
    let text = group(found).trim_end_matches('=');
    let whole = data_encoding::BASE64_NOPAD.decode(text.as_bytes());
    // Of one that was cut, all that is whole.
    let part = || data_encoding::BASE64_NOPAD.decode(text.get(..text.len() / 4 * 4)?.as_bytes()).ok();
    whole.ok().or_else(part).is_some_and(|bytes| bytes.contains(&b':'))
}

/// A password, or something in the place of a user of the web; not the user of a login, not a port.
fn is_user_info(text: &str, found: &Captures<'_>) -> bool {
    let info = group(found);
    let before = found.get(0).and_then(|it| text.get(..it.start())).unwrap_or_default();
    match info.split_once(':') {
        Some((_, rest)) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            !(digits > 0 && rest.get(digits..).is_some_and(|it| it.starts_with('/')))
        }
        None => before.ends_with("http") || before.ends_with("https"),
    }
}

/// A rule from the configuration: where it has a group, the first group is the secret, else all it matches.
#[derive(Clone, Debug)]
pub struct UserPattern(Regex);

impl UserPattern {
    /// Takes it as it was written.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rule = RegexBuilder::new(text).size_limit(RULE_SIZE).build().map_err(|error| {
            let said = error.to_string();
            said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("not a regular expression").trim().to_owned()
        })?;
        if rule.is_match("") {
            return Err("it matches the empty text, and so everywhere; write what a secret has at least".to_owned());
        }
        Ok(Self(rule))
    }
}

impl PartialEq for UserPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for UserPattern {}

struct Shape {
    rule: &'static str,
    expression: Regex,
    check: fn(&str, &Captures<'_>) -> bool,
}

/// All rules.
pub struct Policy {
    filter: AhoCorasick,
    /// For each needle of the filter the shapes that it asks for; none asks for names and programs.
    asks: Vec<Option<usize>>,
    shapes: Vec<Shape>,
    assigned: Regex,
    cut_off: Regex,
    mark: Regex,
    patterns: Vec<UserPattern>,
    names: Vec<UserName>,
    sha256: String,
}

impl Policy {
    /// The built-in rules.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        static BUILT_IN: OnceLock<Arc<Policy>> = OnceLock::new();
        Arc::clone(BUILT_IN.get_or_init(|| Arc::new(Self::new(Vec::new(), Vec::new()))))
    }

    /// The built-in rules, and those of a configuration.
    ///
    /// # Panics
    /// Never: the built-in expressions are constants, and a test makes this policy.
    #[must_use]
    pub fn new(names: Vec<UserName>, patterns: Vec<UserPattern>) -> Self {
        let compiled =
            |text: &str| Regex::new(&text.replace('~', "\u{fffd}~")).expect("a constant that a test compiles");
        let mut needles: Vec<&str> = Vec::new();
        let mut asks = Vec::new();
        let mut shapes = Vec::new();
        let mut hash = Sha256::new();
        let mut fix = |part: &str| {
            hash.update(part.as_bytes());
            hash.update([0]);
        };
        fix("agent-loop.redact/1");
        for (number, (rule, asking, expression, check)) in RULES.iter().enumerate() {
            fix(rule);
            fix(expression);
            needles.extend(*asking);
            asks.extend(asking.iter().map(|_| Some(number)));
            shapes.push(Shape { rule, expression: compiled(expression), check: *check });
        }
        let assigned = ASSIGNED.replace("VALUE?", &VALUE.replace(")+", ")*"));
        for part in [assigned.as_str(), CUT_OFF].into_iter().chain(PROMISES.iter().copied()) {
            fix(part);
        }
        for (program, letters) in PROGRAMS {
            fix(program);
            letters.iter().for_each(|letter| fix(letter));
        }
        patterns.iter().for_each(|pattern| fix(pattern.0.as_str()));
        names.iter().for_each(|name| fix(&name.0));
        let of_names = PROMISES.iter().copied().chain(PROGRAMS.iter().map(|(program, _)| *program));
        for needle in of_names.chain(names.iter().map(|name| name.0.as_str())) {
            needles.push(needle);
            asks.push(None);
        }
        let filter = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&needles)
            .expect("a few hundred needles of a few bytes");
        Self {
            filter,
            asks,
            shapes,
            assigned: Regex::new(&assigned).expect("a constant that a test compiles"),
            cut_off: compiled(CUT_OFF),
            mark: Regex::new("‹redacted:([a-z0-9-]{1,32}):[0-9a-f]{16}›").expect("a constant that a test compiles"),
            patterns,
            names,
            sha256: data_encoding::HEXLOWER.encode(&hash.finalize()),
        }
    }

    /// The SHA-256 over all rules, in hexadecimal digits.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether any rule has to look at this text at all.
    pub(super) fn may_hold_any(&self, text: &str) -> bool {
        !self.patterns.is_empty() || self.filter.is_match(text)
    }

    /// What a name promises of its value.
    pub(super) fn promise(&self, name: &str) -> Option<Promise> {
        names::promise(name, &self.names)
    }

    /// Where something was replaced already, by a rule that there is.
    pub(super) fn marks(&self, text: &str) -> Vec<Range<usize>> {
        if !text.contains('‹') {
            return Vec::new();
        }
        let ours = |rule: &str| {
            let by_words = ["name", "argument", "header", "pem", "cut", "configured"];
            by_words.contains(&rule) || self.shapes.iter().any(|shape| shape.rule == rule)
        };
        let marks = self.mark.captures_iter(text).filter(|it| ours(it.get(1).map_or("", |rule| rule.as_str())));
        marks.filter_map(|it| Some(it.get(0)?.range())).collect()
    }

    /// What is secret in a text by its shape or its name; `cut` says that its end is missing.
    pub(super) fn spans(&self, text: &str, cut: bool) -> Vec<Span> {
        let mut spans = Vec::new();
        let (mut asked, mut by_name) = (vec![false; self.shapes.len()], false);
        for found in self.filter.find_overlapping_iter(text) {
            match self.asks.get(found.pattern().as_usize()).copied().flatten() {
                Some(shape) => asked[shape] = true,
                None => by_name = true,
            }
        }
        for (shape, _) in self.shapes.iter().zip(asked).filter(|(_, asked)| *asked) {
            let found = shape.expression.captures_iter(text).filter(|found| (shape.check)(text, found));
            spans.extend(found.filter_map(|it| {
                let at = it.get(1).or_else(|| it.get(0))?.range();
                Some(Span { at, rule: shape.rule })
            }));
        }
        for UserPattern(pattern) in &self.patterns {
            let found = pattern.captures_iter(text).filter_map(|it| Some(it.get(1).or_else(|| it.get(0))?.range()));
            spans.extend(found.map(|at| Span { at, rule: "configured" }));
        }
        if by_name {
            self.assigned(text, &mut spans);
        }
        if cut && let Some(found) = self.cut_off.find(text) {
            spans.push(Span { at: found.range(), rule: "cut" });
        }
        spans
    }

    /// Values of names, wherever they stand in a text.
    fn assigned(&self, text: &str, spans: &mut Vec<Span>) {
        let mut from = 0;
        while let Some(found) = self.assigned.captures_at(text, from) {
            let (Some(name), Some(quote), Some(sign), Some(blank), Some(value)) =
                (found.get(1), found.get(2), found.get(3), found.get(4), found.get(5))
            else {
                return;
            };
            let enough = match self.promise(name.as_str()) {
                None => false,
                Some(Promise::Strong) => true,
                Some(Promise::Weak) => sign.as_str() != ":" || !quote.is_empty() || blank.is_empty(),
            };
            if enough && !is_harmless(value.as_str(), text.len() > value.end()) {
                spans.push(Span { at: value.range(), rule: "name" });
                from = value.end();
            } else {
                // What stands after the sign may be a name itself.
                from = sign.end();
            }
        }
    }
}

/// A value that is no secret whatever its name says: a number, a flag, what a shell puts there itself.
pub(super) fn is_harmless(value: &str, _in_a_script: bool) -> bool {
    let inner = value.trim_matches(['"', '\'', '\\', ',', '}', ']']);
    let is_name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
            && !text.starts_with(|it: char| it.is_ascii_digit())
    };
    let variable = !value.starts_with('\'')
        && inner.strip_prefix('$').is_some_and(|rest| {
            let rest = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
            is_name(rest)
                && rest.len() > 1
                && rest.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_')
        });
    let short_number = inner.len() <= 7 && inner.bytes().all(|it| it.is_ascii_digit());
    variable || short_number || matches!(inner, "" | "true" | "false" | "null" | "none" | "None" | "yes" | "no" | "$")
}
