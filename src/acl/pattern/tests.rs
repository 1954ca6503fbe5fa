use super::*;

fn found(source: &str, text: &str, mode: Mode) -> bool {
    Pattern::compile(source, mode).unwrap().is_match(text)
}

#[test]
fn a_pattern_is_searched_as_pcre_would() {
    let both = [
        ("", "anything", true),
        ("^$", "", true),
        ("^$", "a", false),
        ("b", "abc", true),
        ("^b", "abc", false),
        ("^clink-A-", "clink-A-:msg", true),
        ("^clink-A-", "clink-AB-", false),
        ("^a\\.b\\z", "a.b", true),
        ("^a\\.b\\z", "axb", false),
        ("^a|b", "xb", true),
        ("^(a|b)c", "bc", true),
        ("a{2}", "aa", true),
        ("a{", "a{", true),
        ("a{,3}", "a{,3}", true),
        ("[[a]", "[", true),
        ("[]a]", "]", true),
        ("[^]a]", "]", false),
        ("[a&&b]", "&", true),
        ("[[:digit:]]+", "x7", true),
        ("\\d\\w\\s", "1a ", true),
        ("\\<a\\>", "<a>", true),
        ("(?i)abc", "ABC", true),
        ("^.$", "é", false),
        ("é", "caf\u{e9}", true),
        ("}", "}", true),
        ("]", "]", true),
        ("(?<n>a)b", "ab", true),
        ("a\\Z", "xa", true),
    ];
    for mode in [Mode::Strict, Mode::Emqx] {
        for (source, text, expected) in both {
            assert_eq!(found(source, text, mode), expected, "{source} on {text:?}");
        }
    }
}

#[test]
fn the_end_anchor_is_absolute_only_in_strict_mode() {
    for source in ["^adm$", "m$", "^(adm)$"] {
        assert!(found(source, "adm\n", Mode::Emqx), "{source}");
        assert!(!found(source, "adm\n", Mode::Strict), "{source}");
        assert!(!found(source, "adm\n\n", Mode::Emqx), "{source}");
    }
    assert!(!found("^adm\\z", "adm\n", Mode::Emqx));
}

#[test]
fn what_needs_backtracking_is_refused_by_name() {
    let table = [
        ("a(?=b)", 1),
        ("a(?!b)", 1),
        ("(?<=a)b", 0),
        ("(?<!a)b", 0),
        ("(a)\\1", 3),
        ("(?P=n)", 0),
        ("\\k<n>", 0),
        ("(?>a)", 0),
        ("a++", 2),
        ("a*+", 2),
        ("a{2}+", 4),
        ("a\\Kb", 1),
        ("(?R)", 0),
        ("(?1)", 0),
        ("(?(1)a)", 0),
        ("(*FAIL)", 0),
        ("\\Qa\\E", 0),
    ];
    for (source, expected) in table {
        match Pattern::compile(source, Mode::Strict) {
            Err(PatternError::Unsupported { offset, .. }) => assert_eq!(offset, expected, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn mistakes_have_an_offset_and_programs_a_limit() {
    let offset = |source: &str| match Pattern::compile(source, Mode::Strict) {
        Err(PatternError::Syntax { offset, .. }) => offset,
        other => panic!("{source}: {other:?}"),
    };
    assert_eq!(offset("("), Some(0));
    assert_eq!(offset("ab)"), Some(2));
    assert_eq!(offset("a\\"), Some(1));
    assert_eq!(offset("a[b"), Some(1));
    let big = Pattern::compile("((a{1000}){1000}){10}", Mode::Strict);
    assert!(matches!(big, Err(PatternError::TooBig)), "{big:?}");
}

#[test]
fn shapes_are_told_by_their_looks() {
    let shape = |source: &str| Pattern::compile(source, Mode::Strict).unwrap().shape;
    assert!(shape("^clink-A-").anchored);
    assert!(!shape("clink-A-").anchored);
    assert!(!shape("^a|b").anchored);
    assert!(shape("^a|^b").anchored);
    assert_eq!(shape("^clink-A-").prefix, "clink-A-");
    assert_eq!(shape("^clink\\.A-[0-9]").prefix, "clink.A-");
    assert_eq!(shape("^clink-A*").prefix, "clink-");
    assert_eq!(shape("^ab$").dollar, Some(3));
    assert!(shape("^ab$").literal && shape("^ab\\z").ends);
    assert!(shape("^clink.A-").loose_dots);
    assert!(!shape("^clink.*A-").loose_dots);
    assert!(shape("^(a+)+$").nested_repetition);
    assert!(!shape("^(a)+b+$").nested_repetition);
}
