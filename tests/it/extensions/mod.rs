//! Extensions, run for real: components built by `wasm-extensions/build.sh`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

pub(crate) mod compatibility;
mod decide;
mod fair;
mod fuel;
mod host;
mod hostile;
mod hostile_modules;
mod oci;
pub(crate) mod place;
mod registry;
mod sandbox;
mod signatures;
mod supply;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use beamline_sidecar::extensions::{
    Built, CallEnv, CallLimits, CallOutput, CallRecord, Compiler, ComponentCache, Engines, Kind,
    MessageRecord, Raw, Time, Work,
};

/// A component's bytes.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = guest_path(name);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: run tests/setup.sh, which builds the extensions",
            path.display()
        )
    })
}

pub(crate) fn guest_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("wasm-extensions/target/components")
        .join(format!("{name}.wasm"))
}

/// Compiles with the program under test.
pub(crate) fn compiler() -> Compiler {
    Compiler {
        program: env!("CARGO_BIN_EXE_beamline-sidecar").into(),
        timeout: Duration::from_secs(600),
        memory_bytes: 2 << 30,
        in_background: false,
    }
}

/// One for all tests of this process: its pools are large. What is compiled is kept for other processes.
pub(crate) fn component_cache() -> &'static ComponentCache {
    static COMPONENT_CACHE: LazyLock<ComponentCache> = LazyLock::new(|| {
        let engines = Engines::new(64, 64 << 20).expect("engines");
        ComponentCache::new(
            Arc::new(engines),
            compiler(),
            Some(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
        )
    });
    &COMPONENT_CACHE
}

pub(crate) fn built(name: &str) -> Arc<Built> {
    component_cache()
        .build(&guest(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) const LIMITS: CallLimits = CallLimits {
    memory_bytes: 16 << 20,
    table_elements: 10_000,
    output_bytes: 1 << 20,
    fuel: None,
};

pub(crate) const TIME: Time = Time::of(Duration::from_millis(2_000));

pub(crate) fn record(config: &str) -> CallRecord<'_> {
    CallRecord {
        tenant_id: "acme",
        policy_id: "main",
        trace_id: "",
        request_id: "r-1",
        context: "{}",
        config,
        remaining_ms: 100,
    }
}

pub(crate) fn message(payload: &str) -> MessageRecord<'_> {
    MessageRecord {
        message_id: "",
        message_type: "chat",
        payload,
        metadata: "{}",
    }
}

/// Calls the misbehaving validator.
pub(crate) fn misbehave(config: &str, limits: CallLimits, time: Time) -> CallOutput<Raw> {
    let built = built("misbehaving-validator");
    let prepared = component_cache()
        .link(&built, Kind::Validator, &built.interface.needs())
        .expect("it links");
    let work = Work::Validator(message("\"seen\""));
    prepared.call(record(config), work, limits, time, CallEnv { now_ms: 7, seed: 1 })
}
