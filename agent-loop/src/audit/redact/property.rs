//! Whatever the text, and wherever a secret stands in it.

use proptest::prelude::*;

use super::corpus::{AROUND, filler, shapes};
use super::*;

/// Texts that come close to what the rules look for.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "\\PC{0,12}",
        2 => prop::sample::select(vec![
            " ", "\n", "=", ":", "\"", "'", "\\", "--token", "token", "password=", "://", "@", "Bearer ", "sk-", "eyJ", ".",
            "-----BEGIN PRIVATE KEY-----", "‹redacted:", "name:", "0123456789abcdef", "›", "curl -u ", "sh -c ", "$", ";",
            "Authorization: ", "-p", "mysql ", "\u{fffd}",
        ]).prop_map(str::to_owned),
        1 => "[A-Za-z0-9]{16,40}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_redacted_stays_as_it_is(text in text()) {
        let redactor = Redactor::passing();
        let once = redactor.text(&text).into_owned();
        prop_assert_eq!(&redactor.text(&once), &once);
    }

    #[test]
    fn words_that_are_redacted_stay_as_they_are(words in prop::collection::vec(text(), 0..8), cut: bool) {
        let redactor = Redactor::passing();
        let once = redactor.words(&words, cut);
        prop_assert_eq!(once.len(), words.len());
        prop_assert_eq!(redactor.words(&once, cut), once);
    }

    #[test]
    fn i22_a_secret_is_found_wherever_it_stands(before in text(), after in text(), shape in prop::sample::select(shapes())) {
        let part = shape.rsplit('/').next().unwrap_or(&shape).to_owned();
        let text = format!("{before}{shape}{after}");
        let redactor = Redactor::passing();
        prop_assert!(!redactor.text(&text).contains(&part), "{}", text);
        let said = redactor.words(&["x".to_owned(), before, format!("{shape}{after}")], false);
        prop_assert!(!said.concat().contains(&part), "{:?}", said);
    }

    #[test]
    fn i22_a_value_is_found_by_what_stands_around_it(before in "[a-z ]{0,20}", around in prop::sample::select(AROUND)) {
        let secret = filler(30);
        let text = format!("{before} {}{secret}{}", around.0, around.1);
        prop_assert!(!Redactor::passing().text(&text).contains(&secret), "{}", text);
    }
}
