use super::*;

fn texts(kind: Kind, text: &str) -> Vec<&str> {
    find(text, &[kind])
        .into_iter()
        .map(|found| &text[found.at])
        .collect()
}

fn assert_finds(kind: Kind, cases: &[(&str, &[&str])]) {
    for (text, wanted) in cases {
        assert_eq!(&texts(kind, text), wanted, "{} in {text:?}", kind.name());
    }
}

#[test]
fn cards() {
    assert_finds(
        Kind::Card,
        &[
            ("4111111111111111", &["4111111111111111"]),
            ("pay 4111 1111 1111 1111 12/26 now", &["4111 1111 1111 1111"]),
            (
                "5555-5555-5555-4444, 378282246310005",
                &["5555-5555-5555-4444", "378282246310005"],
            ),
            ("x4111.1111.1111.1111x", &["4111.1111.1111.1111"]),
            (
                "ref 12 4111\u{a0}1111\u{a0}1111\u{a0}1111",
                &["4111\u{a0}1111\u{a0}1111\u{a0}1111"],
            ),
            // Wrong check digit, no issuer, too long, too short, decimals, two separators.
            ("4111111111111112", &[]),
            ("1234567812345670", &[]),
            ("41111111111111111111111", &[]),
            ("411111111111", &[]),
            ("0.4111111111111111", &[]),
            ("4111  1111  1111  1111", &[]),
            ("", &[]),
        ],
    );
}

#[test]
fn emails() {
    assert_finds(
        Kind::Email,
        &[
            (
                "write to jane.doe+x@mail.example.com.",
                &["jane.doe+x@mail.example.com"],
            ),
            ("<a@b.io>,c@d.org", &["a@b.io", "c@d.org"]),
            ("müller@bücher.example", &["müller@bücher.example"]),
            ("a@xn--bcher-kva.xn--p1ai", &["a@xn--bcher-kva.xn--p1ai"]),
            ("..a@b.io", &["a@b.io"]),
            ("a@b@c.io", &["b@c.io"]),
            ("a@localhost, @handle, a@1.2.3.4, a@b.c, a@@b.io, a@ä1.ä1", &[]),
        ],
    );
    let long = format!("{}@example.com", "x".repeat(100));
    assert_eq!(texts(Kind::Email, &long)[0].len(), 64 + "@example.com".len());
}

#[test]
fn phones() {
    assert_finds(
        Kind::Phone,
        &[
            ("call +358 40 123 4567 today", &["+358 40 123 4567"]),
            ("+358 40 123 4567 2026-11-21", &["+358 40 123 4567"]),
            (
                "+1 (212) 555-0123/00442079460123",
                &["+1 (212) 555-0123", "00442079460123"],
            ),
            ("0044 20 7946 0123", &["0044 20 7946 0123"]),
            (
                "1+4915112345678, a+4915112345678, +0123456789, +1234567, 000000000000",
                &[],
            ),
            ("+1234567890123456", &[]),
        ],
    );
    assert_finds(
        Kind::NationalPhone,
        &[
            (
                "(212) 555-0123 or 212-555-0124 x9",
                &["(212) 555-0123", "212-555-0124"],
            ),
            ("020 7946 0123", &["020 7946 0123"]),
            ("112-555-0123, 2026-11-21 10:00, 0207946012, 09-11-2026 12", &[]),
        ],
    );
}

#[test]
fn national_ids() {
    assert_finds(
        Kind::UsSsn,
        &[
            ("ssn 123-45-6789.", &["123-45-6789"]),
            ("-123-45-6789-", &["123-45-6789"]),
            (
                "000-45-6789 666-45-6789 912-45-6789 123-00-6789 123-45-0000 1123-45-6789 123456789",
                &[],
            ),
        ],
    );
    assert_finds(
        Kind::GbNino,
        &[
            ("AB123456C, ab 12 34 56 d", &["AB123456C", "ab 12 34 56 d"]),
            (
                "DB123456C AO123456C GB123456C AB123456E XAB123456C AB123456CX AB12345",
                &[],
            ),
        ],
    );
    assert_finds(
        Kind::EsDni,
        &[
            (
                "12345678Z 12345678-z x1234567l X-1234567-L",
                &["12345678Z", "12345678-z", "x1234567l", "X-1234567-L"],
            ),
            (
                "12345678A 1-2345678Z 123456789 1234567Z 12345678-Z-1 é12345678",
                &[],
            ),
        ],
    );
    assert_finds(
        Kind::PlPesel,
        &[
            ("44051401359", &["44051401359"]),
            ("44051401358 44991401359 440514013590", &[]),
        ],
    );
}

#[test]
fn the_kinds_are_found_in_the_order_asked_for() {
    let text = "a@b.io 4111111111111111";
    let found = find(text, &[Kind::Card, Kind::Email]);
    assert_eq!(
        found.iter().map(|found| found.kind).collect::<Vec<_>>(),
        [Kind::Card, Kind::Email]
    );
}

#[test]
fn an_allow_list_compares_what_counts() {
    let allow = |entry: &str| [entry.to_owned()];
    assert!(is_allowed("4111 1111 1111 1111", &allow("4111-1111-1111-1111")));
    assert!(is_allowed("Help@Example.com", &allow("help@example.com")));
    assert!(is_allowed("any@example.com", &allow("@Example.com")));
    assert!(!is_allowed("any@notexample.com", &allow("@example.com")));
    assert!(!is_allowed("any@example.com", &allow("other@example.com")));
    assert!(!is_allowed("any@example.com", &[]));
}

/// Text made of what the scans look for: none may panic or cut a character, or take long.
#[test]
fn no_text_breaks_a_scan() {
    let alphabet = [
        '4', '1', '0', ' ', '-', '.', '+', '(', '@', 'a', 'Z', 'é', '\u{a0}', '💳', 'x', 'n',
    ];
    let mut state = 1_u64;
    for length in 0..4_000 {
        let text: String = (0..length % 60)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                alphabet[(state >> 60) as usize]
            })
            .collect();
        for found in find(&text, &Kind::ALL) {
            assert!(!text[found.at].is_empty());
        }
    }
    for piece in [
        "4", "4 ", "@", "a@", "a.", "+", "00", "0 ", "(", "AB ", "-", "12-",
    ] {
        let text = piece.repeat(100_000 / piece.len());
        find(&text, &Kind::ALL);
    }
}
