use super::corpus::{AROUND, ORDINARY, filler, shapes};
use super::*;

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

fn held(line: &[&str]) -> Vec<String> {
    Redactor::passing().words(&words(line), false)
}

#[test]
fn i22_every_shape_of_the_corpus_is_held_back() {
    let redactor = Redactor::passing();
    for secret in shapes() {
        // What is no secret of a webhook is its host.
        let part = secret.rsplit('/').next().unwrap_or(&secret);
        for text in [secret.clone(), format!("x{secret}"), format!("\"{secret}\""), format!("say {secret}, please")] {
            let said = redactor.text(&text);
            assert!(!said.contains(part), "{text:?} became {said:?}");
        }
        let cut: String = secret.chars().take(secret.len() - 5).collect();
        let said = redactor.words(&["git".to_owned(), cut.clone()], true).concat();
        assert!(!said.contains(part.get(..part.len() - 5).unwrap_or(part)), "{cut:?} became {said:?}");
    }
}

#[test]
fn i22_what_stands_around_a_word_makes_it_secret() {
    let secret = filler(24);
    for (before, after) in AROUND {
        let text = format!("{before}{secret}{after}");
        let said = Redactor::passing().text(&text).into_owned();
        assert!(!said.contains(&secret), "{text:?} became {said:?}");
        assert!(said.ends_with(after.trim_end_matches('}')) || after.ends_with('}'), "{text:?} became {said:?}");
        let said = held(&["program", &text]).concat();
        assert!(!said.contains(&secret), "the word {text:?} became {said:?}");
    }
}

#[test]
fn i22_a_secret_in_the_word_after_its_flag_or_over_several_words_is_held_back() {
    let secret = filler(24);
    let word = secret.as_str();
    let glued = format!("-p{word}");
    let pair = format!("me:{word}");
    let script = format!("x=1; mysql -p{word} -h db && deploy --token '{word}' | cat");
    let nested = format!("bash -c \"curl -u me:{word} https://example.org\"");
    for line in [
        &["deploy", "--token", word, "now"][..],
        &["deploy", "--token", &format!("'{word}'"), "now"],
        &["java", "-password", word],
        &["curl", "-u", &pair, "https://example.org"],
        &["sudo", "curl", "-s", "--user", &pair, "https://example.org"],
        &["mysql", &glued],
        &["sshpass", "-p", word, "ssh", "host"],
        &["docker", "login", "-u", "me", "-p", word],
        &["curl", "-H", "Authorization:", "Bearer", word, "https://example.org"],
        &["curl", "-H", "X-Api-Key:", word],
        &["openssl", "enc", "-k", "x", "-pass", &format!("pass:{word}")],
        &["env", &format!("DB_PASS={word} {word}; {word}"), "make"],
        &["sh", "-c", &script],
        &["sh", "-c", &nested],
        &["tool", "-----BEGIN", "PRIVATE", "KEY-----", word, word, "-----END", "PRIVATE", "KEY-----"],
    ] {
        let said = held(line);
        assert!(!said.concat().contains(word), "{line:?} became {said:?}");
        assert_eq!(said.len(), line.len(), "no word goes");
        assert_eq!(said[0], line[0]);
    }
    assert_eq!(held(&["deploy", "--token", word, "now"])[3], "now");
    assert_eq!(held(&["deploy", "--token", "--verbose"])[2], "--verbose");
}

#[test]
fn bytes_that_are_no_utf_8_do_not_split_a_secret() {
    let text = format!("{}{}\u{fffd}{}", "gh", "p_Abcdefgh12345678", filler(12));
    assert!(!Redactor::passing().text(&text).contains(&filler(12)));
}

#[test]
fn ordinary_command_lines_stay_as_they_are() {
    for line in ORDINARY {
        assert_eq!(held(line), words(line));
    }
}

#[test]
fn equal_secrets_have_equal_tags_under_one_key_and_others_under_another() {
    let redactor = Redactor::new(Policy::built_in(), TagKey::new([7; 32]));
    let tag = |redactor: &Redactor, text: &str| {
        let said = redactor.text(text).into_owned();
        said.rsplit(':').next().map(|tag| tag.chars().take(16).collect::<String>())
    };
    let (a, b) = (filler(20), filler(21));
    let one = tag(&redactor, &format!("--password={a}"));
    assert_eq!(one, tag(&redactor, &format!("Authorization: Bearer {a}")));
    assert_eq!(one, tag(&redactor, &format!("sh -c \"x --token '{a}'\"")).filter(|_| true));
    assert_ne!(one, tag(&redactor, &format!("--password={b}")));
    assert_ne!(one, tag(&Redactor::new(Policy::built_in(), TagKey::new([8; 32])), &format!("--password={a}")));
}

#[test]
fn rules_of_the_configuration_hold_beside_the_built_in_ones_and_change_the_policy() {
    let names = vec![UserName::parse("klammer").expect("good")];
    let patterns = vec![UserPattern::parse("id<([0-9]+)>").expect("good")];
    let redactor = Redactor::new(Arc::new(Policy::new(names, patterns)), TagKey::passing());
    let said = redactor.words(&words(&["x", "--klammer", "affe", "id<12345678>"]), false);
    assert!(said[2].starts_with("‹redacted:argument:"), "{said:?}");
    assert!(said[3].starts_with("id<‹redacted:configured:") && said[3].ends_with("›>"), "{said:?}");
    assert_ne!(redactor.policy_sha256(), Policy::built_in().sha256());
    assert!(UserPattern::parse("a*").is_err() && UserPattern::parse("(").is_err());
}

#[test]
fn what_a_mark_bares_is_looked_at_until_nothing_is_found() {
    let redactor = Redactor::passing();
    let once = redactor.words(&words(&["Authorization: \u{fb30}\\a&\\0;'\u{3a3}"]), false);
    assert_eq!(redactor.words(&once, false), once);
}
