//! Deeds that are the same in every world.

use std::{
    hint::black_box,
    sync::{Mutex, PoisonError},
};

use beamline_extension_sdk::{Failure, Json, clock, log, metrics, random};
use serde_json::json;

use crate::{Config, Deed};

/// How many lines `flood-log` writes, and how many names `count-metrics` counts.
const LINES: usize = 10_000;
const NAMES: usize = 1_000;

/// Does what needs no answer. Does not come back from some of it.
pub(crate) fn act(deed: Deed, config: &Config) {
    match deed {
        Deed::Loop => loop {
            black_box(());
        },
        Deed::LoopInHost => loop {
            log::info("again");
        },
        Deed::Recurse => {
            black_box(descend(black_box(1)));
        }
        Deed::Allocate => allocate(config.bytes),
        Deed::Trap => trap(),
        #[expect(clippy::panic, reason = "the test asks for a panic")]
        Deed::Panic => panic!("as it was told"),
        Deed::FloodLog => {
            for line in 0..LINES {
                log::info(&format!("line {line}"));
            }
            log::info(&"x".repeat(1 << 20));
        }
        Deed::CountMetrics => {
            for name in 0..NAMES {
                metrics::count(&format!("name_{name}"), 1);
            }
            for name in ["", "Upper", "1st", "with space", "quote\"}", &"x".repeat(1 << 16)] {
                metrics::count(name, 1);
            }
            metrics::count("much", u64::MAX);
            metrics::count("much", u64::MAX);
        }
        Deed::Spin => {
            for turn in 0..config.iterations {
                black_box(turn);
            }
        }
        _ => {}
    }
}

/// The failure that the deed answers with, if it does.
pub(crate) fn failure(deed: Deed) -> Option<Failure> {
    match deed {
        Deed::Failure => Some(Failure::new("made_up", "as it was told")),
        Deed::BadFailureCode => Some(Failure::new("Not a code!\n", "as it was told")),
        _ => None,
    }
}

/// What every world that answers with JSON answers: text that ought to be an object. `seen` is what
/// `remember` keeps. Nothing where the deed has no such answer.
pub(crate) fn answer(config: &Config, seen: &str) -> Option<Json> {
    let object = match config.deed {
        Deed::HugeOutput => {
            // `{"x":""}` is eight bytes long.
            let text = "x".repeat(config.bytes.saturating_sub(8));
            return Some(Json::from_text(format!(r#"{{"x":"{text}"}}"#)));
        }
        Deed::ManyItems => {
            // `{"x":[0]}` is nine bytes long.
            let items = "0,".repeat(config.bytes.saturating_sub(9) / 2);
            return Some(Json::from_text(format!(r#"{{"x":[{items}0]}}"#)));
        }
        Deed::BadJson => return Some(Json::from_text("{no json")),
        Deed::NoObject => return Some(Json::from_text("[1]")),
        Deed::Remember => json!({"before": remember(seen)}),
        Deed::Random => json!({"random": [random::next_u64(), random::next_u64()]}),
        Deed::Clock => json!({"now_ms": clock::now_ms()}),
        Deed::Tenant => json!({"tenant_id": "another"}),
        _ => return None,
    };
    Some(Json::from(&object))
}

/// Keeps a text in this instance and says which one was kept before.
pub(crate) fn remember(seen: &str) -> Option<String> {
    static KEPT: Mutex<Option<String>> = Mutex::new(None);
    KEPT.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(seen.to_owned())
}

/// Uses the engine's stack and no memory; what is done with the answer keeps it from being a loop.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    if depth == u64::MAX {
        return depth;
    }
    depth.wrapping_sub(descend(depth + 1).rotate_left(7))
}

fn allocate(bytes: usize) {
    const STEP: usize = 64 * 1024;
    let mut kept = Vec::new();
    while bytes == 0 || kept.len() * STEP < bytes {
        kept.push(black_box(vec![1_u8; STEP]));
    }
    black_box(&kept);
}

fn trap() {
    #[cfg(target_family = "wasm")]
    std::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    std::process::abort();
}
