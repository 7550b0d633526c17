//! Amounts of CPU and memory as Kubernetes writes them.

/// Whether this is an amount that is not negative: `500m`, `1.5`, `64Mi`, `1e3`.
pub(super) fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    // The exponent of `1e3` ends in digits, so it is part of what is left.
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = !(whole.is_empty() && fraction.is_empty()) && are_digits(whole) && are_digits(fraction);
    let has_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        suffix.is_empty() && !digits.is_empty() && are_digits(digits)
    });
    let suffixes = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    text.len() <= 32 && has_digits && has_exponent && suffixes.contains(&suffix)
}

/// How much that is; `None`: it is no amount. Exact enough to say which of two is more.
pub(super) fn amount(text: &str) -> Option<f64> {
    if !is_quantity(text) {
        return None;
    }
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[number.len()..] {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024_f64,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        _ => 1.0,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_whatever_their_unit() {
        for (less, more) in [
            ("48Mi", "64Mi"),
            ("999m", "1"),
            ("64M", "64Mi"),
            (".5", "1e3"),
            ("900Ki", "1Mi"),
        ] {
            assert!(amount(less).unwrap() < amount(more).unwrap(), "{less} {more}");
        }
        assert_eq!(amount("1000m"), amount("1"));
        assert_eq!(amount("a lot"), None);
    }

    #[test]
    fn amounts_are_those_of_kubernetes() {
        for good in [
            "0", "1", "100m", "0.5", ".5", "1.", "64Mi", "1Gi", "1e3", "1E6", "1e-3", "2k", "5E",
        ] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in [
            "", "m", "Mi", "-1", "+1", "1mi", "64MB", "64 Mi", "1e", "1e3Mi", "1,5", "0x10", "1.2.3", "١",
            ".",
        ] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
