//! Judges what happened. The order of the writes is the store's own, as the first follower heard it; what was answered must
//! agree with that order, and that order with the time.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    clients::{Heard, State},
    record::{Read, Record, Written},
};

/// Everything that is not as it was promised.
pub(super) fn judge(record: &Record, state: &State, heard: &[Vec<Heard>]) -> Vec<String> {
    let mut complaints = Vec::new();
    let order = &heard[0];
    let writes = record.writes();
    followers(order, state, heard, &mut complaints);
    acknowledged(order, &writes, &mut complaints);
    times(order, &writes, &mut complaints);
    for read in record.reads() {
        if let Some(complaint) = stale(&read, order, &writes) {
            complaints.push(complaint);
        }
    }
    ending(order, state, &mut complaints);
    complaints
}

/// No follower misses or reorders a change, or hears of one twice.
fn followers(order: &[Heard], state: &State, heard: &[Vec<Heard>], complaints: &mut Vec<String>) {
    for (follower, heard) in heard.iter().enumerate() {
        for (index, change) in heard.iter().enumerate() {
            if change.revision != index as u64 + 1 {
                complaints.push(format!(
                    "follower {follower} heard of {change:?} as number {}",
                    index + 1
                ));
                break;
            }
        }
        if heard.len() as u64 != state.revision {
            complaints.push(format!(
                "follower {follower} heard of {} changes of {}",
                heard.len(),
                state.revision
            ));
        }
        if heard != order {
            complaints.push(format!("follower {follower} heard of another history"));
        }
    }
}

/// What was acknowledged is there, as the revision that was said, and nothing is there twice or was never asked for.
fn acknowledged(order: &[Heard], writes: &[Written], complaints: &mut Vec<String>) {
    let by_number: BTreeMap<u64, &Written> = writes.iter().map(|write| (write.number, write)).collect();
    let mut seen = BTreeSet::new();
    for change in order {
        let Some(number) = change.number else { continue };
        if !seen.insert(number) {
            complaints.push(format!("{change:?} was made twice"));
        }
        match by_number.get(&number) {
            Some(write) if write.key == change.key => {}
            other => complaints.push(format!("{change:?} is not what was asked for: {other:?}")),
        }
    }
    for write in writes {
        let Some((_, revision)) = write.acknowledged else {
            continue;
        };
        let number = (!write.is_delete).then_some(write.number);
        let found = usize::try_from(revision - 1)
            .ok()
            .and_then(|index| order.get(index));
        if !found.is_some_and(|change| change.key == write.key && change.number == number) {
            complaints.push(format!("{write:?} was acknowledged, and there is {found:?}"));
        }
    }
}

/// A write that was asked for after another one had been acknowledged comes after it.
fn times(order: &[Heard], writes: &[Written], complaints: &mut Vec<String>) {
    let by_number: BTreeMap<u64, &Written> = writes.iter().map(|write| (write.number, write)).collect();
    let deleted: BTreeMap<u64, &Written> = writes
        .iter()
        .filter(|write| write.is_delete)
        .filter_map(|write| Some((write.acknowledged?.1, write)))
        .collect();
    // From the last to the first: the earliest acknowledgement among those that come later.
    let mut earliest: Option<&Written> = None;
    for change in order.iter().rev() {
        let write = match change.number {
            Some(number) => by_number.get(&number),
            None => deleted.get(&change.revision),
        };
        let Some(write) = write else { continue };
        if let Some(later) = earliest
            && later.acknowledged.is_some_and(|(at, _)| at < write.asked)
        {
            complaints.push(format!(
                "{write:?} is revision {} and before {later:?}, which had been acknowledged before it was asked for",
                change.revision
            ));
        }
        if let Some((at, _)) = write.acknowledged
            && earliest
                .and_then(|write| write.acknowledged)
                .is_none_or(|(earliest, _)| at < earliest)
        {
            earliest = Some(write);
        }
    }
}

/// A read shows what was acknowledged before it was asked for, or something later, and nothing that was asked for after its
/// answer.
fn stale(read: &Read, order: &[Heard], writes: &[Written]) -> Option<String> {
    let newest_before = writes
        .iter()
        .filter(|write| write.key == read.key)
        .filter_map(|write| write.acknowledged)
        .filter(|(at, _)| *at < read.asked)
        .map(|(_, revision)| revision)
        .max()
        .unwrap_or(0);
    match read.revision {
        Some(revision) => {
            let found = usize::try_from(revision - 1)
                .ok()
                .and_then(|index| order.get(index));
            if !found.is_some_and(|change| change.key == read.key && change.number == read.number) {
                return Some(format!("{read:?} shows what was never there: {found:?}"));
            }
            if revision < newest_before {
                return Some(format!("{read:?} is older than the revision {newest_before}"));
            }
            let asked = writes
                .iter()
                .find(|write| Some(write.number) == read.number)
                .map(|write| write.asked);
            asked
                .is_some_and(|asked| asked > read.answered)
                .then(|| format!("{read:?} shows what was asked for later"))
        }
        None => {
            // There must have been a moment without it: at the beginning, or after a deletion.
            let was_absent = newest_before == 0
                || order.iter().any(|change| {
                    change.key == read.key && change.number.is_none() && change.revision >= newest_before
                });
            (!was_absent).then(|| format!("{read:?} misses the revision {newest_before}"))
        }
    }
}

/// What there is in the end is what the last changes made.
fn ending(order: &[Heard], state: &State, complaints: &mut Vec<String>) {
    let mut expected = BTreeMap::new();
    for change in order {
        match change.number {
            Some(number) => expected.insert(change.key.clone(), number),
            None => expected.remove(&change.key),
        };
    }
    if expected != state.policies {
        complaints.push(format!("there is {:?} and not {expected:?}", state.policies));
    }
}

/// A judge who never complains proves nothing.
#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn heard(changes: &[Option<u64>]) -> Vec<Heard> {
        let heard = |(index, number): (usize, &Option<u64>)| Heard {
            revision: index as u64 + 1,
            key: "k".into(),
            number: *number,
        };
        changes.iter().enumerate().map(heard).collect()
    }

    /// Write `number` was asked for and acknowledged at these seconds, as this revision.
    fn written(number: u64, asked: u64, acknowledged: Option<(u64, u64)>, begun: Instant) -> Written {
        let at = |second| begun + Duration::from_secs(second);
        Written {
            number,
            key: "k".into(),
            is_delete: false,
            asked: at(asked),
            acknowledged: acknowledged.map(|(second, revision)| (at(second), revision)),
            given_up: false,
        }
    }

    fn complaints(writes: Vec<Written>, reads: Vec<Read>, changes: &[Option<u64>]) -> usize {
        let record = Record::default();
        writes.into_iter().for_each(|write| record.wrote(write));
        reads.into_iter().for_each(|read| record.read(read));
        let last = changes.last().copied().flatten();
        let state = State {
            revision: changes.len() as u64,
            policies: last.map(|number| ("k".to_owned(), number)).into_iter().collect(),
        };
        judge(&record, &state, &[heard(changes), heard(changes)]).len()
    }

    #[test]
    fn each_broken_promise_is_found() {
        let begun = Instant::now();
        let read = |asked, answered, number: Option<u64>| Read {
            key: "k".into(),
            asked: begun + Duration::from_secs(asked),
            answered: begun + Duration::from_secs(answered),
            revision: number,
            number,
        };
        let two = || {
            vec![
                written(1, 0, Some((1, 1)), begun),
                written(2, 2, Some((3, 2)), begun),
            ]
        };
        let fine = [Some(1), Some(2)];
        assert_eq!(
            complaints(two(), vec![read(1, 2, Some(1)), read(2, 4, Some(1))], &fine),
            0
        );
        assert_eq!(complaints(two(), vec![read(4, 5, Some(2))], &fine), 0);
        assert!(
            complaints(two(), vec![read(4, 5, Some(1))], &fine) > 0,
            "an old document"
        );
        assert!(complaints(two(), vec![read(4, 5, None)], &fine) > 0, "none");
        assert!(
            complaints(two(), vec![read(0, 1, Some(2))], &fine) > 0,
            "the future"
        );
        assert!(complaints(two(), Vec::new(), &[Some(1)]) > 0, "a lost write");
        assert!(
            complaints(two(), Vec::new(), &[Some(1), Some(2), Some(2)]) > 0,
            "twice"
        );
        assert!(
            complaints(two(), Vec::new(), &[Some(2), Some(1)]) > 0,
            "another order"
        );
        // One that was not acknowledged may come at any time, but not before what was acknowledged first.
        let late = || vec![written(1, 2, None, begun), written(2, 0, Some((1, 2)), begun)];
        assert!(
            complaints(late(), Vec::new(), &[Some(1), Some(2)]) > 0,
            "overtaken"
        );
        let lost = vec![written(1, 0, None, begun), written(2, 2, Some((3, 1)), begun)];
        assert_eq!(complaints(lost, Vec::new(), &[Some(2), Some(1)]), 0);
        // Followers.
        let record = Record::default();
        two().into_iter().for_each(|write| record.wrote(write));
        let state = State {
            revision: 2,
            policies: [("k".to_owned(), 2)].into(),
        };
        let missed = judge(&record, &state, &[heard(&fine), heard(&fine[..1])]);
        assert!(!missed.is_empty());
    }
}
