//! Finds personal data in text. No patterns, only scans that look at each character a bounded number
//! of times, so that no text is slow. All but e-mail addresses is looked for around digits, which
//! most texts have few of. The JavaScript and Python twins of `pii-guard` find the same: change all
//! three together, and `tests/pii-guard.yaml` with them.

mod digits;
mod email;
mod national;

use std::ops::Range;

use serde::Deserialize;

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A payment card number: an issuer's prefix and length, and a valid check digit.
    Card,
    /// An e-mail address.
    Email,
    /// A telephone number in the international form: `+` or `00` and 8 to 15 digits.
    Phone,
    /// A telephone number in a national form. It is easily mistaken, so it is not a default.
    NationalPhone,
    /// A social security number of the United States, with its hyphens.
    UsSsn,
    /// A national insurance number of the United Kingdom.
    GbNino,
    /// A Spanish DNI or NIE with its check letter.
    EsDni,
    /// A Polish PESEL with a date and a check digit. Eleven digits alone: not a default.
    PlPesel,
}

impl Kind {
    /// Every kind, in the order in which they are reported.
    pub const ALL: [Self; 8] = [
        Self::Card,
        Self::Email,
        Self::Phone,
        Self::NationalPhone,
        Self::UsSsn,
        Self::GbNino,
        Self::EsDni,
        Self::PlPesel,
    ];

    /// What is looked for where nothing is said: what is seldom mistaken.
    pub const DEFAULT: [Self; 6] = [
        Self::Card,
        Self::Email,
        Self::Phone,
        Self::UsSsn,
        Self::GbNino,
        Self::EsDni,
    ];

    /// The name in configurations and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::NationalPhone => "national_phone",
            Self::UsSsn => "us_ssn",
            Self::GbNino => "gb_nino",
            Self::EsDni => "es_dni",
            Self::PlPesel => "pl_pesel",
        }
    }
}

/// Where something was found in a text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Where it stands, at character boundaries.
    pub at: Range<usize>,
}

/// Finds everything of these kinds: kind by kind in the order given, and from left to right within one.
/// What two kinds find may overlap; what one kind finds does not.
pub fn find(text: &str, kinds: &[Kind]) -> Vec<Found> {
    std::mem::take(Finder::default().find(text, kinds))
}

/// Finds in one text after the other, in the same memory: in a component nothing is freed.
#[derive(Debug, Default)]
pub struct Finder {
    digits: Vec<Range<usize>>,
    found: Vec<Found>,
}

impl Finder {
    /// As [`find`]. What was found in the text before is forgotten.
    pub fn find(&mut self, text: &str, kinds: &[Kind]) -> &mut Vec<Found> {
        let Self { digits, found } = self;
        digits.clear();
        found.clear();
        digits::runs(text, digits);
        for &kind in kinds {
            if digits.is_empty() && kind != Kind::Email {
                continue;
            }
            let mut add = |at: Range<usize>| found.push(Found { kind, at });
            match kind {
                Kind::Card => digits::cards(text, digits, &mut add),
                Kind::Phone => digits::phones(text, digits, &mut add),
                Kind::NationalPhone => digits::national_phones(text, &mut add),
                Kind::Email => email::emails(text, &mut add),
                Kind::UsSsn => national::us_ssn(text, digits, &mut add),
                Kind::GbNino => national::gb_nino(text, digits, &mut add),
                Kind::EsDni => national::es_dni(text, digits, &mut add),
                Kind::PlPesel => national::pl_pesel(text, digits, &mut add),
            }
        }
        found
    }
}

/// A value as an allow-list compares it: an e-mail address in lower case, anything else by its ASCII
/// letters and digits, in upper case.
pub fn comparable(text: &str) -> String {
    if text.contains('@') {
        text.to_lowercase()
    } else {
        text.chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect()
    }
}

/// Whether an allow-list names what was found. An entry that starts with `@` allows a mail domain.
pub fn is_allowed(found: &str, allow: &[String]) -> bool {
    if allow.is_empty() {
        return false;
    }
    let found = comparable(found);
    allow.iter().any(|entry| {
        let entry = comparable(entry);
        found == entry || (entry.starts_with('@') && found.ends_with(&entry))
    })
}

#[cfg(test)]
mod tests;
