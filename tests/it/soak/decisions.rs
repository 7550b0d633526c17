//! Decisions, against a model that was written from the contract alone: 20 000 random cases, a million in a long run.
#![expect(clippy::print_stdout, reason = "a long run says how it can be repeated")]

use crate::decide::model;

/// `BEAMLINE_SOAK_SECONDS` makes a long run, `BEAMLINE_SOAK_SEED` repeats one.
#[test]
fn an_independent_model_agrees_with_every_decision() {
    let environment = beamline_sidecar::config::environment();
    let number = |name: &str| environment.get(name).and_then(|text| text.parse().ok());
    let seed: u64 = number("BEAMLINE_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = if number("BEAMLINE_SOAK_SECONDS").is_some() {
        1_000_000
    } else {
        20_000
    };
    println!("{cases} cases; BEAMLINE_SOAK_SEED={seed} repeats them");
    model::compare(cases, seed);
}
