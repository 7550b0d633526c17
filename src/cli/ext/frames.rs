//! Where a guest crashed, for people: names as its author wrote them, without what a panic itself calls.

/// Parts of the names of functions that a panic in Rust goes through on its way to the trap.
const PANIC: [&str; 4] = ["panic", "rust_begin_unwind", "rust_end_short_backtrace", "abort"];

/// The frames worth showing, the innermost first.
pub(super) fn shown(frames: &[String]) -> Vec<String> {
    let is_panic = |frame: &&String| PANIC.iter().any(|part| frame.contains(part));
    let mut rest: Vec<&String> = frames.iter().skip_while(is_panic).collect();
    if rest.is_empty() {
        rest = frames.iter().collect();
    }
    rest.into_iter()
        .map(|frame| plain(frame).unwrap_or_else(|| frame.clone()))
        .collect()
}

/// `_ZN2my5guard17h…E` as `my::guard`; `None` for what is not mangled so.
fn plain(symbol: &str) -> Option<String> {
    let mut rest = symbol.strip_prefix("_ZN")?;
    let mut parts = Vec::new();
    while !rest.starts_with('E') {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let length: usize = rest.get(..digits)?.parse().ok()?;
        let part = rest.get(digits..digits.checked_add(length)?)?;
        rest = rest.get(digits + length..)?;
        parts.push(unescaped(part)?);
    }
    // The last one is a digest.
    if parts
        .last()
        .is_some_and(|part| part.len() == 17 && part.starts_with('h'))
    {
        parts.pop();
    }
    Some(parts.join("::"))
}

/// `$LT$a..B$GT$` as `<a::B>`.
fn unescaped(part: &str) -> Option<String> {
    let part = part
        .strip_prefix("_$")
        .map_or_else(|| part.to_owned(), |rest| format!("${rest}"));
    let mut text = String::with_capacity(part.len());
    let mut rest = part.as_str();
    while let Some((before, escaped)) = rest.split_once('$') {
        let (name, after) = escaped.split_once('$')?;
        text.push_str(before);
        match name {
            "LT" => text.push('<'),
            "GT" => text.push('>'),
            "LP" => text.push('('),
            "RP" => text.push(')'),
            "RF" => text.push('&'),
            "BP" => text.push('*'),
            "SP" => text.push('@'),
            "C" => text.push(','),
            hex => text.push(char::from_u32(
                u32::from_str_radix(hex.strip_prefix('u')?, 16).ok()?,
            )?),
        }
        rest = after;
    }
    text.push_str(rest);
    Some(text.replace("..", "::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_were_written() {
        let symbol = "_ZN90_$LT$my_validator..MyValidator$u20$as$u20$beamline_extension_sdk..extension..Validator$GT$8validate17h6b863549ae86748cE";
        assert_eq!(
            plain(symbol).as_deref(),
            Some("<my_validator::MyValidator as beamline_extension_sdk::extension::Validator>::validate")
        );
        assert_eq!(
            plain("_ZN2my5guard17h6b863549ae86748cE").as_deref(),
            Some("my::guard")
        );
        for odd in [
            "validate",
            "function 3",
            "_ZN",
            "_ZN9x",
            "_ZN99999999999999999999xE",
            "_ZN3$a$E",
            "_ZN2éé",
        ] {
            assert_eq!(plain(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_a_panic_calls_is_left_out() {
        let frames = [
            "__rust_start_panic",
            "_RNv3std9panicking",
            "rust_begin_unwind",
            "my_fault",
            "panicky",
        ]
        .map(String::from);
        assert_eq!(shown(&frames), ["my_fault", "panicky"]);
        assert_eq!(shown(&frames[..2]), frames[..2]);
    }
}
