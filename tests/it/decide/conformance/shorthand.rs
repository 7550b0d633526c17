//! The short texts that cases are written in.

/// `x*256 (256 bytes)` is the character so many times; other texts are themselves.
pub(super) fn repeated(text: &str) -> String {
    let plain = text.split_once(" (").map_or(text, |(plain, _)| plain);
    match plain.split_once('*') {
        Some((unit, count)) if unit.chars().count() == 1 => count
            .parse()
            .map_or_else(|_| text.to_owned(), |count| unit.repeat(count)),
        _ => text.to_owned(),
    }
}

/// One step of a story.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A word, such as `F`, `S`, `should_allow`.
    Does(String),
    /// Time passes, in milliseconds.
    Waits(u64),
}

/// `F*6 S*4`, `(F F S)*3`, `F wait 1500 ms S`, `FFFS`.
pub(super) fn story(text: &str) -> Result<Vec<Step>, String> {
    // `F F S repeated for 10 events`, `F S repeated 4 times`.
    if let Some((unit, rest)) = text.split_once(" repeated ") {
        let unit = story(unit)?;
        let steps = match rest.split_whitespace().collect::<Vec<_>>()[..] {
            ["for", count, "events"] => unit.iter().cycle().take(number(count)?).cloned().collect(),
            [count, "times"] => {
                let steps = unit.len() * number(count)?;
                unit.iter().cycle().take(steps).cloned().collect()
            }
            _ => return Err(format!("the events {text:?}")),
        };
        return Ok(steps);
    }
    let spaced = text
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace([',', ';'], " ");
    // `) *3` and `F *3` as well as `F*3`.
    let spaced = spaced.replace(" *", "*").replace("* ", "*");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let steps = group(&words, &mut at)?;
    if at == words.len() {
        Ok(steps)
    } else {
        Err(format!("the events {text:?}"))
    }
}

fn group(words: &[&str], at: &mut usize) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    while let Some(word) = words.get(*at) {
        *at += 1;
        match *word {
            "(" => {
                let inner = group(words, at)?;
                let closing = words.get(*at).ok_or("a bracket that is never closed")?;
                *at += 1;
                let times = match closing.strip_prefix(")*") {
                    Some(count) => number(count)?,
                    None => 1,
                };
                for _ in 0..times {
                    steps.extend(inner.iter().cloned());
                }
            }
            word if word.starts_with(')') => {
                *at -= 1;
                return Ok(steps);
            }
            "then" | "and" => {}
            "wait" | "after" | "+" => {
                let amount = words.get(*at).ok_or("a wait of no length")?;
                *at += 1;
                let (digits, unit) = split_unit(amount);
                let unit = if unit.is_empty() {
                    let unit = words
                        .get(*at)
                        .copied()
                        .filter(|word| ["ms", "s", "m", "min"].contains(word));
                    *at += usize::from(unit.is_some());
                    unit.unwrap_or("ms")
                } else {
                    unit
                };
                steps.push(Step::Waits(millis(digits, unit)?));
            }
            word => {
                let (word, times) = match word.split_once('*') {
                    Some((word, count)) => (word, number(count)?),
                    None => (word, 1),
                };
                // `FFS` is three events.
                let letters = word.len() > 1 && word.chars().all(|letter| "FS".contains(letter));
                for _ in 0..times {
                    if letters {
                        steps.extend(word.chars().map(|letter| Step::Does(letter.to_string())));
                    } else {
                        steps.push(Step::Does(word.to_owned()));
                    }
                }
            }
        }
    }
    Ok(steps)
}

fn number(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|_| format!("the number {text:?}"))?;
    if count > 1_000_000 {
        Err(format!("so many: {text}"))
    } else {
        Ok(count)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(text.len()),
    )
}

pub(super) fn millis(digits: &str, unit: &str) -> Result<u64, String> {
    let amount: f64 = digits.parse().map_err(|_| format!("the time {digits:?}"))?;
    let scale = match unit {
        "ms" => 1.0,
        "s" | "second" | "seconds" => 1_000.0,
        "m" | "min" | "minute" | "minutes" => 60_000.0,
        _ => return Err(format!("the unit {unit:?}")),
    };
    Ok((amount * scale).round() as u64)
}

/// `5 now, 1 now, then 6 after 1 s`: how many, and how long after the ones before, in milliseconds.
pub(super) fn bursts(text: &str) -> Result<Vec<(usize, u64)>, String> {
    let mut bursts = Vec::new();
    for part in text.split([',', ';']).flat_map(|part| part.split(" then ")) {
        let words: Vec<&str> = part
            .split_whitespace()
            .filter(|word| !["then", "and", "more"].contains(word))
            .collect();
        if words.is_empty() {
            continue;
        }
        let not_understood = || format!("the requests {part:?}");
        let (count, rest) = words.split_first().ok_or_else(not_understood)?;
        let count = count
            .trim_end_matches('x')
            .parse()
            .map_err(|_| not_understood())?;
        let after = match rest {
            [] | ["now"] | ["at", "once"] | ["concurrent"] | ["concurrently"] | ["immediately"] => 0,
            ["after", "another", rest @ ..] | ["after", rest @ ..] => {
                duration(rest).ok_or_else(not_understood)??
            }
            rest => match rest.strip_suffix(&["later"]) {
                Some(rest) => duration(rest).ok_or_else(not_understood)??,
                None => return Err(not_understood()),
            },
        };
        bursts.push((count, after));
    }
    Ok(bursts)
}

fn duration(words: &[&str]) -> Option<Result<u64, String>> {
    match words {
        [one] => {
            let (digits, unit) = split_unit(one);
            Some(millis(digits, unit))
        }
        [digits, unit] => Some(millis(digits, unit)),
        _ => None,
    }
}

/// The numbers of a text, in order.
pub(super) fn numbers(text: &str) -> Vec<i64> {
    text.split(|letter: char| !letter.is_ascii_digit() && letter != '-')
        .filter_map(|part| part.parse().ok())
        .collect()
}
