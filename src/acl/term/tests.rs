use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> (Vec<Term>, Vec<String>) {
    let mut source = Source::new(text);
    let terms = read(&mut source);
    let found = source.into_diagnostics();
    (terms, found.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.code)).collect())
}

fn good(text: &str) -> Vec<TermKind> {
    let (terms, errors) = parse(text);
    assert_eq!(errors, Vec::<String>::new(), "{text}");
    terms.into_iter().map(|term| term.kind).collect()
}

fn string(text: &str) -> TermKind {
    TermKind::String(text.to_owned())
}

#[test]
fn terms_are_read_as_erlang_reads_them() {
    let table = [
        ("allow.", TermKind::Atom("allow".into())),
        ("'and'.", TermKind::Atom("and".into())),
        ("a_B@1.", TermKind::Atom("a_B@1".into())),
        ("\"a\" \"b\"\n\"c\".", string("abc")),
        ("\"a\nb\".", string("a\nb")),
        ("\"\\n\\\"\\\\\\x41\\x{e9}\\101\\^A\\s\\d\\0\\q\".", string("\n\"\\AéA\u{1} \u{7f}\0q")),
        ("<<\"ab\", 99>>.", TermKind::Binary(b"abc".to_vec())),
        ("<<\"é\">>.", TermKind::Binary(vec![0xE9])),
        ("<<\"é\"/utf8>>.", TermKind::Binary("é".into())),
        ("<<>>.", TermKind::Binary(Vec::new())),
        ("-1_000.", TermKind::Integer(-1000)),
        ("16#fF.", TermKind::Integer(255)),
        ("$a.", TermKind::Integer(97)),
        ("$\\n.", TermKind::Integer(10)),
        ("99999999999999999999.", TermKind::Integer(i64::MAX)),
        ("1.5e3.", TermKind::Unsupported("a float")),
        ("#{a => 1, \"b\" => [x]}.", TermKind::Unsupported("a map")),
        ("{}.", TermKind::Tuple(Vec::new())),
        ("[]% comment.\n.", TermKind::List(Vec::new())),
    ];
    for (text, expected) in table {
        assert_eq!(good(text), [expected], "{text}");
    }
    assert_eq!(good("% only\n\u{a0}"), []);
    assert_eq!(good("a. b.%c\n d.").len(), 3);
}

#[test]
fn spans_cover_the_term() {
    let text = "  {a,\n [\"b\" \"c\"]} .";
    let (terms, _) = parse(text);
    assert_eq!(&text[terms[0].span.start..terms[0].span.end], "{a,\n [\"b\" \"c\"]}");
}

#[test]
fn the_reader_goes_on_after_an_error() {
    let text = "{a b}.\n{Var, 'x}.\n";
    assert_eq!(parse(text).1, ["1:4 E101", "2:2 E103", "2:7 E104"]);
    let text = "{a, }.\n{b}\n{c}.\nf(1).\n{and, d}.\n{e}.{f}.\n{g";
    let (terms, errors) = parse(text);
    assert_eq!(errors, ["1:5 E101", "2:4 E102", "4:1 E103", "5:2 E106", "6:4 E101", "7:3 E101"]);
    assert_eq!(terms.len(), 5);
}

#[test]
fn limits_are_errors() {
    let deep = format!("{}{}.", "[".repeat(33), "]".repeat(33));
    assert_eq!(parse(&deep).1, Vec::<String>::new());
    let deep = format!("{}{}.", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&deep).1, ["1:34 E002"]);
    let long = format!("\"{}\".", "x".repeat(STRING_BYTES_MAX + 1));
    assert_eq!(parse(&long).1, ["1:1 E002"]);
    let many = "a.\n".repeat(RULES_MAX + 1);
    assert_eq!(parse(&many).1, ["10001:1 E002"]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
        parse(&text);
    }

    #[test]
    fn any_tokens_are_read_without_panic(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ".", ". ", "|", "<<", ">>", "\"", "'", "\\", "$", "#", "#{", "=>", "1",
                "1.", "16#", "a", "A", "and", "%", "\n", " ", "/utf8", "\u{feff}", "é", "€", "-", "\\x{", "\\x",
            ]),
            0..40,
        )
    ) {
        parse(&tokens.concat());
    }
}
