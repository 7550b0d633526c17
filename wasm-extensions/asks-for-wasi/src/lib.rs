//! A validator that imports an interface of WASI, as a component does that was built for
//! `wasm32-wasip2`: the host must refuse it and say what to do.

use beamline_extension_sdk::{Call, Extension, Failure, Message, NoConfig, Validator, Verdict, export};

/// The extension.
#[derive(Debug)]
pub struct AsksForWasi;

impl Extension for AsksForWasi {
    type Config = NoConfig;
}

impl Validator for AsksForWasi {
    fn validate(_: &Call<NoConfig>, _: &Message) -> Result<Verdict, Failure> {
        #[cfg(target_family = "wasm")]
        if !wasi::wasi::cli::environment::get_environment().is_empty() {
            return Ok(Verdict::reject("there is an environment"));
        }
        Ok(Verdict::Accept)
    }
}

export!(validator: AsksForWasi);

#[cfg(target_family = "wasm")]
mod wasi {
    wit_bindgen::generate!({
        world: "beamline:wasi/asks",
        inline: "
            package beamline:wasi;

            world asks {
                import wasi:cli/environment@0.2.6;
            }

            package wasi:cli@0.2.6 {
                interface environment {
                    get-environment: func() -> list<tuple<string, string>>;
                }
            }
        ",
        generate_all,
    });
}
