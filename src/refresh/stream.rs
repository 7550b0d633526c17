//! Documents of the HEIR API into what can be activated. All of it or nothing: a stream without its end, a count
//! that differs or a line that is no JSON sinks the whole; a policy that is broken sinks only itself.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::problem::too_large;
use crate::{
    heir::{HeirError, wire},
    policy::{ETag, InvalidId, PolicyId, Problem, TenantId},
    snapshot::{ChangeSet, Coverage, Incoming, Key, Operation, Position, Problems, Scope, Snapshot, check},
};

/// Longest line of a snapshot stream in terms of the longest policy: the document may come twice, once with every
/// character escaped.
const LINE_FACTOR: usize = 8;

/// Parses a snapshot stream that arrives in pieces. Blocks: runs on a thread of its own while the pieces are read.
pub(super) fn parse_snapshot(
    mut pieces: mpsc::Receiver<Bytes>,
    base: &Snapshot,
    policy_bytes: usize,
) -> Result<Incoming, HeirError> {
    let mut reader = SnapshotReader {
        base,
        policy_bytes,
        incoming: None,
        objects: 0,
        ended: false,
    };
    let mut rest = BytesMut::new();
    while let Some(mut piece) = pieces.blocking_recv() {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let line = piece.split_to(end + 1);
            if rest.is_empty() {
                reader.line(&line[..end])?;
            } else {
                rest.extend_from_slice(&line[..end]);
                reader.line(&rest)?;
                rest.clear();
            }
        }
        rest.extend_from_slice(&piece);
        if rest.len() > LINE_FACTOR * policy_bytes + 4096 {
            return Err(invalid("a line of the snapshot is too long"));
        }
    }
    if !rest.is_empty() {
        reader.line(&rest)?;
    }
    reader.finish()
}

fn invalid(reason: impl Into<String>) -> HeirError {
    HeirError::Invalid(reason.into())
}

struct SnapshotReader<'a> {
    base: &'a Snapshot,
    policy_bytes: usize,
    incoming: Option<Incoming>,
    objects: u64,
    ended: bool,
}

impl SnapshotReader<'_> {
    fn line(&mut self, line: &[u8]) -> Result<(), HeirError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.ended {
            return Err(invalid("the snapshot goes on after its end line"));
        }
        let line: wire::Line<'_> = serde_json::from_slice(line)
            .map_err(|error| invalid(format!("a line of the snapshot: {error}")))?;
        let Some(incoming) = &mut self.incoming else {
            self.incoming = Some(begin(&line)?);
            return Ok(());
        };
        match &*line.kind {
            "policy" => {
                self.objects += 1;
                let (Some(tenant), Some(policy_id)) = (&line.tenant_id, &line.policy_id) else {
                    return Err(invalid("a policy line lacks tenant_id or policy_id"));
                };
                // A name that is no id cannot be looked up either; there is nothing to keep it under.
                let Some(key) = parse_key(tenant, policy_id)? else {
                    return Ok(());
                };
                let Some(policy) = line.policy else {
                    let remedy = "put the policy again";
                    incoming
                        .problems
                        .insert(key, vec![Problem::error("$", "HEIR sent no document", remedy)]);
                    return Ok(());
                };
                let bytes = wire::exact_bytes(policy, line.policy_text.as_deref());
                if let Some(problem) = too_large(bytes.len() as u64, self.policy_bytes) {
                    incoming.problems.insert(key, vec![problem]);
                } else {
                    let etag = line.etag.as_deref().and_then(ETag::parse);
                    incoming.take(self.base, key, bytes, etag, line.revision);
                }
            }
            "extension" => {
                self.objects += 1;
                let (Some(id), Some(record)) = (&line.id, line.extension) else {
                    return Err(invalid("an extension line lacks id or extension"));
                };
                incoming.extensions.insert(id.to_string(), record.get().into());
            }
            "end" => {
                if line.count != Some(self.objects) {
                    let count = line.count.unwrap_or_default();
                    return Err(invalid(format!(
                        "the snapshot has {} objects, its end says {count}",
                        self.objects
                    )));
                }
                self.ended = true;
            }
            // A newer HEIR may have kinds of objects that this version does not know.
            _ => self.objects += 1,
        }
        Ok(())
    }

    fn finish(self) -> Result<Incoming, HeirError> {
        match self.incoming {
            Some(incoming) if self.ended => Ok(incoming),
            _ => Err(invalid("the snapshot ends before its end line")),
        }
    }
}

fn begin(line: &wire::Line<'_>) -> Result<Incoming, HeirError> {
    if line.kind != "snapshot" {
        return Err(invalid("the first line does not begin a snapshot"));
    }
    if line.format != Some(wire::SNAPSHOT_FORMAT) {
        return Err(invalid(format!("snapshot format {:?} is not known", line.format)));
    }
    let position = Position {
        revision: line.revision,
        chain: line.chain.as_deref().map(Arc::from),
    };
    Ok(Incoming::new(Scope::Everything, Coverage::Whole, position))
}

/// `None` where a name is that of an operation: no path leads to it. Any other that is no id is not HEIR's, and neither is
/// what it is part of.
fn parse_key(tenant: &str, policy: &str) -> Result<Option<Key>, HeirError> {
    match (TenantId::parse(tenant), PolicyId::parse(policy)) {
        (Ok(tenant), Ok(policy)) => Ok(Some((tenant, policy))),
        (Err(InvalidId::Reserved), _) | (_, Err(InvalidId::Reserved)) => {
            tracing::warn!(
                tenant,
                policy,
                "HEIR has a policy that no path leads to; it is left out."
            );
            Ok(None)
        }
        (Err(error), _) => Err(invalid(format!("the tenant_id {tenant:?} {error}"))),
        (_, Err(error)) => Err(invalid(format!("the policy_id {policy:?} {error}"))),
    }
}

/// Parses an answer of `/api/v1/changes` to the question for what came after `from`.
pub(super) fn parse_changes(
    body: &[u8],
    from: &Position,
    base: &Snapshot,
    policy_bytes: usize,
) -> Result<ChangeSet, HeirError> {
    let answer: wire::Changes<'_> =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the changes: {error}")))?;
    if Some(answer.from) != from.revision || answer.to < answer.from {
        return Err(invalid(format!(
            "changes from {} to {} were not asked for",
            answer.from, answer.to
        )));
    }
    if from.chain.is_some() && (answer.from_chain.is_none() || answer.to_chain.is_none()) {
        return Err(invalid(
            "the changes do not say which history they continue, as the snapshot did",
        ));
    }
    let chain = |chain: Option<std::borrow::Cow<'_, str>>| chain.as_deref().map(Arc::from);
    let mut changes = ChangeSet {
        from: Position {
            revision: Some(answer.from),
            chain: chain(answer.from_chain),
        },
        to: Position {
            revision: Some(answer.to),
            chain: chain(answer.to_chain),
        },
        operations: Vec::with_capacity(answer.changes.len()),
        problems: Problems::new(),
    };
    let mut last = answer.from;
    for change in &answer.changes {
        if let Some(revision) = change.revision {
            // What `from` made is in memory: one that comes with it once more, and as something else, is another history.
            if revision < last || revision <= answer.from || revision > answer.to {
                return Err(invalid(format!(
                    "a change of revision {revision} stands where it cannot"
                )));
            }
            last = revision;
        }
        parse_change(change, base, policy_bytes, &mut changes)?;
    }
    Ok(changes)
}

fn parse_change(
    change: &wire::Change<'_>,
    base: &Snapshot,
    policy_bytes: usize,
    changes: &mut ChangeSet,
) -> Result<(), HeirError> {
    let incomplete = || invalid("a change lacks what its kind demands");
    match (&*change.kind, &*change.op) {
        ("policy", op) => {
            let (tenant, policy_id) = change
                .tenant_id
                .as_deref()
                .zip(change.policy_id.as_deref())
                .ok_or_else(incomplete)?;
            let Some(key) = parse_key(tenant, policy_id)? else {
                return Ok(());
            };
            match op {
                "delete" => {
                    changes.problems.remove(&key);
                    changes.operations.push(Operation::Delete {
                        key,
                        revision: change.revision,
                    });
                }
                "put" => {
                    let bytes = wire::exact_bytes(
                        change.policy.ok_or_else(incomplete)?,
                        change.policy_text.as_deref(),
                    );
                    let etag = change.etag.as_deref().and_then(ETag::parse);
                    let checked = match too_large(bytes.len() as u64, policy_bytes) {
                        Some(problem) => Err(vec![problem]),
                        None => check(base, &key, bytes, etag, change.revision),
                    };
                    match checked {
                        Ok(policy) => {
                            changes.problems.remove(&key);
                            changes.operations.push(Operation::Put { key, policy });
                        }
                        Err(problems) => {
                            changes.problems.insert(key, problems);
                        }
                    }
                }
                other => return Err(invalid(format!("a change with the operation {other:?}"))),
            }
        }
        ("extension", op) => {
            let id = change.id.as_deref().ok_or_else(incomplete)?.to_owned();
            changes.operations.push(match op {
                "delete" => Operation::DeleteExtension { id },
                _ => Operation::PutExtension {
                    id,
                    record: change.extension.ok_or_else(incomplete)?.get().into(),
                },
            });
        }
        // A newer HEIR may have kinds of objects that this version does not know.
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, split: usize) -> Result<Incoming, String> {
        let (sender, receiver) = mpsc::channel(10_000);
        for piece in text.as_bytes().chunks(split) {
            sender.try_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(sender);
        parse_snapshot(receiver, &Snapshot::empty(), 1_000).map_err(|error| error.to_string())
    }

    const GOOD: &str = r#"{"kind":"snapshot","format":1,"revision":7,"chain":"ab"}
{"kind":"policy","tenant_id":"t","policy_id":"p","revision":3,"etag":"\"x\"","policy":{"a":1}}
{"kind":"extension","id":"e","revision":4,"extension":{"type":"pre"}}
{"kind":"novelty","id":"n"}
{"kind":"policy","tenant_id":"t","policy_id":"q","policy":[1]}
{"kind":"end","count":4}
"#;

    #[test]
    fn a_stream_is_read_however_it_is_cut() {
        for split in [1, 7, 100, 10_000] {
            let incoming = parse(GOOD, split).unwrap();
            assert_eq!(
                incoming.position,
                Position {
                    revision: Some(7),
                    chain: Some("ab".into())
                }
            );
            assert_eq!(incoming.len(), 1);
            let policy = &incoming.policies["t"]["p"];
            assert_eq!(
                (policy.document.bytes().as_ref(), policy.revision),
                (&b"{\"a\":1}"[..], Some(3))
            );
            assert_eq!(policy.document.etag().as_str(), "\"x\"");
            assert_eq!(
                incoming.problems.len(),
                1,
                "the broken policy is reported and does not sink the rest"
            );
            assert_eq!(incoming.extensions["e"].as_ref(), r#"{"type":"pre"}"#);
        }
    }

    #[test]
    fn a_stream_with_any_flaw_is_refused_whole() {
        let lines: Vec<&str> = GOOD.lines().collect();
        let without = |skip: usize| {
            lines
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != skip)
                .map(|(_, l)| format!("{l}\n"))
                .collect::<String>()
        };
        for flawed in [
            String::new(),
            without(0),
            without(1),
            without(5),
            format!("{GOOD}{}\n", lines[1]),
            GOOD.replace("\"format\":1", "\"format\":2"),
            GOOD.replace("{\"a\":1}", "{\"a\":1"),
            GOOD.replace("\"count\":4", "\"count\":5"),
            GOOD.replace("\"policy_id\":\"p\",", ""),
            format!("{}\n{}", lines[0], "x".repeat(20_000)),
            GOOD[..GOOD.len() - 10].to_owned(),
        ] {
            assert!(parse(&flawed, 64).is_err(), "{flawed}");
        }
    }

    fn changes(body: &str) -> Result<ChangeSet, String> {
        let from = Position {
            revision: Some(5),
            chain: None,
        };
        parse_changes(body.as_bytes(), &from, &Snapshot::empty(), 1_000).map_err(|error| error.to_string())
    }

    #[test]
    fn hostile_38_changes_that_were_not_asked_for_are_refused() {
        let put = |revision| {
            format!(
                r#"{{"op":"put","kind":"policy","tenant_id":"t","policy_id":"p","revision":{revision},"policy":{{}}}}"#
            )
        };
        let answer = |from, to, list: &[String]| {
            format!(r#"{{"from":{from},"to":{to},"changes":[{}]}}"#, list.join(","))
        };
        assert_eq!(
            changes(&answer(5, 7, &[put(6), put(7)]))
                .unwrap()
                .operations
                .len(),
            2
        );
        assert_eq!(changes(&answer(5, 5, &[])).unwrap().operations.len(), 0);
        for wrong in [
            answer(4, 7, &[put(6)]),
            answer(6, 7, &[put(7)]),
            answer(5, 4, &[]),
            answer(5, 7, &[put(7), put(6)]),
            answer(5, 7, &[put(4)]),
            answer(5, 7, &[put(5), put(6)]),
            answer(5, 5, &[put(5)]),
            answer(5, 7, &[put(8)]),
            answer(5, 7, &[r#"{"op":"put","kind":"policy","tenant_id":"t"}"#.into()]),
            answer(
                5,
                7,
                &[r#"{"op":"swap","kind":"policy","tenant_id":"t","policy_id":"p"}"#.into()],
            ),
            "[]".into(),
            "{".into(),
        ] {
            assert!(changes(&wrong).is_err(), "{wrong}");
        }
    }
}
