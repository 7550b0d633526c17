//! One text.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::Config;

/// The text as the configuration wants it; `None` where it is so already.
pub(crate) fn normalize(text: &str, config: &Config) -> Option<String> {
    let mut new = Cow::Borrowed(text);
    // Small letters first: what they become may have a shorter form.
    if config.lowercase {
        new = Cow::Owned(new.to_lowercase());
    }
    // Most texts are plain, and then there is nothing to look up and nothing to copy.
    if !is_plain(&new) {
        if config.nfc && is_nfc_quick(new.chars()) != IsNormalized::Yes {
            new = Cow::Owned(new.nfc().collect());
        }
        if config.collapse_whitespace {
            new = Cow::Owned(collapse(&new));
        }
    }
    let new = if config.trim_whitespace { new.trim() } else { &new };
    (new != text).then(|| new.to_owned())
}

/// Whether a text is ASCII, and its only blanks are spaces and line feeds, none beside another: neither the normalization
/// form nor collapsing changes it.
fn is_plain(text: &str) -> bool {
    let mut after_blank = false;
    text.bytes().all(|c| {
        let is_blank = matches!(c, b' ' | b'\n');
        let is_plain = c.is_ascii_graphic() || (is_blank && !after_blank);
        after_blank = is_blank;
        is_plain
    })
}

/// Blanks in a row become one space; where they hold line breaks, these alone remain, two at most.
fn collapse(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_whitespace() {
            collapsed.push(c);
            continue;
        }
        let (mut blank, mut breaks) = (c, 0);
        loop {
            match blank {
                '\r' if chars.peek() == Some(&'\n') => {}
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' => breaks += 1,
                '\u{2029}' => breaks += 2,
                _ => {}
            }
            match chars.next_if(|c| c.is_whitespace()) {
                Some(next) => blank = next,
                None => break,
            }
        }
        collapsed.push_str(match breaks {
            0 => " ",
            1 => "\n",
            _ => "\n\n",
        });
    }
    collapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Config = Config {
        fields: Vec::new(),
        ignore: Vec::new(),
        nfc: false,
        trim_whitespace: false,
        collapse_whitespace: false,
        lowercase: false,
    };

    #[test]
    fn blanks_in_a_row_become_one() {
        let config = Config {
            collapse_whitespace: true,
            ..OFF
        };
        for (text, wanted) in [
            (" a \t b\u{a0}\u{2003}c ", " a b c "),
            ("a\t", "a "),
            ("a  \r\n  b", "a\nb"),
            ("a\n\n\n\nb\r\rc", "a\n\nb\n\nc"),
            ("a\u{2029}b\u{2028}c", "a\n\nb\nc"),
        ] {
            assert_eq!(normalize(text, &config).as_deref(), Some(wanted), "{text:?}");
        }
        for same in ["", "a b", "a\nb", "a\n\nb", " ", "zero\u{200b}width"] {
            assert_eq!(normalize(same, &config), None, "{same:?}");
        }
    }

    #[test]
    fn ends_are_trimmed() {
        let config = Config {
            trim_whitespace: true,
            ..OFF
        };
        assert_eq!(normalize("\u{3000} a  b\n", &config).as_deref(), Some("a  b"));
        assert_eq!(normalize("\n", &config).as_deref(), Some(""));
        assert_eq!(normalize("a  b", &config), None);
    }

    #[test]
    fn letters_and_their_marks_become_one_character() {
        let config = Config { nfc: true, ..OFF };
        assert_eq!(normalize("Cafe\u{301}", &config).as_deref(), Some("Caf\u{e9}"));
        assert_eq!(
            normalize("\u{1112}\u{1161}\u{11ab}", &config).as_deref(),
            Some("\u{d55c}")
        );
        // Marks in another order, and a sign that form C replaces.
        assert_eq!(
            normalize("q\u{307}\u{323}", &config).as_deref(),
            Some("q\u{323}\u{307}")
        );
        assert_eq!(normalize("\u{212b}", &config).as_deref(), Some("\u{c5}"));
        // Compatibility forms are not form C's.
        assert_eq!(normalize("\u{fb01} Caf\u{e9}", &config), None);
    }

    #[test]
    fn letters_become_small_and_stay_in_form() {
        let config = Config {
            lowercase: true,
            nfc: true,
            ..OFF
        };
        assert_eq!(normalize("ÀÉ A\u{30a} ΣΑΣ", &config).as_deref(), Some("àé å σας"));
        assert_eq!(normalize("ß x 1", &config), None);
    }

    #[test]
    fn plain_texts_are_what_nothing_changes() {
        for text in ["", " ", "a b\nc ", "~!"] {
            assert!(is_plain(text), "{text:?}");
            assert_eq!(collapse(text), text);
        }
        for text in [
            "a  b",
            "a \nb",
            "\t",
            "\r",
            "\u{7f}",
            "\u{1f}",
            "Cafe\u{301}",
            "é",
        ] {
            assert!(!is_plain(text), "{text:?}");
        }
    }

    #[test]
    fn what_was_normalized_is_normal() {
        let config = Config {
            lowercase: true,
            ..Config::default()
        };
        for text in [
            "  İI\u{307} ",
            "\u{2000}\u{301}a \n\t\n \u{301}b",
            "A\u{30a}\u{a0} \u{212b}",
        ] {
            let once = normalize(text, &config).unwrap();
            assert_eq!(normalize(&once, &config), None, "{text:?}");
        }
    }
}
