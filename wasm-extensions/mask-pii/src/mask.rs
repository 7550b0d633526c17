//! One text.

use std::ops::Range;

use personal_data::{Finder, Found, Kind, is_allowed};

use crate::{Config, Style};

/// Writes the text with everything masked that was found in it. Returns whether anything was found.
pub(crate) fn mask(
    text: &str,
    kinds: &[Kind],
    config: &Config,
    finder: &mut Finder,
    masked: &mut String,
) -> bool {
    let found = finder.find(text, kinds);
    found.retain(|found| !is_allowed(&text[found.at.clone()], &config.allow));
    if found.is_empty() {
        return false;
    }
    join(found);
    masked.reserve(text.len());
    let mut after = 0;
    for Found { kind, at } in &*found {
        masked.push_str(&text[after..at.start]);
        after = at.end;
        match config.style {
            Style::Label => masked.extend(["[", kind.name(), "]"]),
            Style::Characters => write_masked(masked, &text[at.clone()], config),
        }
    }
    masked.push_str(&text[after..]);
    true
}

/// From left to right, and what overlaps as one, under the name of what starts first.
fn join(found: &mut Vec<Found>) {
    found.sort_unstable_by_key(|found| (found.at.start, found.kind));
    found.dedup_by(|next, last| {
        let overlaps = next.at.start < last.at.end;
        if overlaps {
            let Range { start, end } = last.at;
            last.at = start..end.max(next.at.end);
        }
        overlaps
    });
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
