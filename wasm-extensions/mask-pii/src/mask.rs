//! One text.

use std::ops::Range;

use personal_data::{Found, Kind, find, is_allowed};

use crate::{Config, Style};

/// The text with everything masked that was found in it; `None` where nothing was.
pub(crate) fn mask(text: &str, kinds: &[Kind], config: &Config) -> Option<String> {
    let mut found = find(text, kinds);
    found.retain(|found| !is_allowed(&text[found.at.clone()], &config.allow));
    if found.is_empty() {
        return None;
    }
    let mut masked = String::with_capacity(text.len());
    let mut after = 0;
    for Found { kind, at } in apart(found) {
        masked.push_str(&text[after..at.start]);
        after = at.end;
        match config.style {
            Style::Label => masked.extend(["[", kind.name(), "]"]),
            Style::Characters => write_masked(&mut masked, &text[at], config),
        }
    }
    masked.push_str(&text[after..]);
    Some(masked)
}

/// From left to right, and what overlaps as one, under the name of what starts first.
fn apart(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|found| (found.at.start, found.kind));
    let mut apart: Vec<Found> = Vec::with_capacity(found.len());
    for found in found {
        match apart.last_mut() {
            Some(last) if found.at.start < last.at.end => {
                let Range { start, end } = last.at;
                last.at = start..end.max(found.at.end);
            }
            _ => apart.push(found),
        }
    }
    apart
}

fn write_masked(masked: &mut String, found: &str, config: &Config) {
    let is_masked = |c: char| c.is_alphanumeric() || !c.is_ascii();
    let count = found.chars().filter(|c| is_masked(*c)).count();
    let mut left = count.saturating_sub(usize::from(config.keep_last));
    for c in found.chars() {
        if left > 0 && is_masked(c) {
            masked.push(config.mask);
            left -= 1;
        } else {
            masked.push(c);
        }
    }
}
