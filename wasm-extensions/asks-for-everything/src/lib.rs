//! A validator that imports each capability on its own account: the tests of the host grant all but
//! one. It refuses every message and reports in the details what the host gave it.

use beamline_extension_sdk::{
    Call, Extension, Failure, Json, Message, NoConfig, Rejection, Validator, Verdict, clock, export, log,
    metrics, random,
};
use serde_json::json;

/// The extension.
#[derive(Debug)]
pub struct AsksForEverything;

impl Extension for AsksForEverything {
    type Config = NoConfig;
}

impl Validator for AsksForEverything {
    fn validate(_: &Call<NoConfig>, _: &Message) -> Result<Verdict, Failure> {
        log::info("asked for everything");
        metrics::count("asked", 1);
        Ok(Verdict::Reject(Rejection {
            reason: "as ever".into(),
            details: Json::from(&json!({"now_ms": clock::now_ms(), "random": random::next_u64()})),
        }))
    }
}

export!(validator: AsksForEverything);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::testing;

    use super::*;

    #[test]
    fn uses_every_capability() {
        testing::reset();
        testing::set_now_ms(5);
        let verdict =
            AsksForEverything::validate(&testing::call(NoConfig {}), &testing::message(&json!(null)));
        let Ok(Verdict::Reject(rejection)) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(rejection.details.value().unwrap()["now_ms"], 5);
        assert_eq!(testing::counted("asked"), 1);
        assert_eq!(testing::lines().len(), 1);
    }
}
