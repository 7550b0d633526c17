//! Write extensions of the Beamline sidecar in Rust.
//!
//! An extension is a type that says what it is configured with ([`Extension`]) and does one kind of
//! work: [`PreProcessor`], [`Validator`], [`Scorer`] or [`PostProcessor`]. [`export!`] makes it the
//! component's. Everything else is plain Rust, so `cargo test` runs it without WebAssembly, with a
//! host in [`testing`] that keeps what was logged and counted.
//!
//! ```
//! use beamline_extension_sdk::{Call, Extension, Failure, Message, Validator, Verdict, export};
//!
//! /// Refuses what is too long.
//! pub struct MaxLength;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     /// Bytes of JSON.
//!     max: usize,
//! }
//!
//! impl Extension for MaxLength {
//!     type Config = Config;
//! }
//!
//! impl Validator for MaxLength {
//!     fn validate(call: &Call<Config>, message: &Message) -> Result<Verdict, Failure> {
//!         Ok(match message.payload.text().len() {
//!             length if length <= call.config.max => Verdict::Accept,
//!             _ => Verdict::reject("the message is too long"),
//!         })
//!     }
//! }
//!
//! export!(validator: MaxLength);
//! ```
//!
//! Every call meets a fresh instance: a static that is written is forgotten after the call. That is
//! also why the default allocator (feature `arena`) never frees.
#![deny(missing_docs)]

mod config;
mod extension;
mod fields;
mod json;
mod types;
mod walk;

#[cfg(any(test, all(target_family = "wasm", feature = "arena")))]
mod arena;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod component;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub mod clock;
pub mod log;
pub mod metrics;
pub mod random;

pub use config::NoConfig;
pub use extension::{Extension, PostProcessor, PreProcessor, Scorer, Validator};
pub use fields::{Fields, Part, Place, Pointer, Step};
pub use json::Json;
pub use types::{
    BreakerState, Call, Candidate, Decision, Failure, Message, PreOutput, Problem, Rejection, Score, Verdict,
};

/// Makes a type the component's extension: `export!(validator: MyGuard);`, and likewise
/// `pre_processor`, `scorer` and `post_processor`. Once per crate, at its root.
///
/// Where the target is not WebAssembly it only checks that the type is one.
#[macro_export]
macro_rules! export {
    (pre_processor: $extension:ty) => {
        $crate::export!(@ PreProcessor, pre_processor, export_pre_processor, $extension);
    };
    (validator: $extension:ty) => {
        $crate::export!(@ Validator, validator, export_validator, $extension);
    };
    (scorer: $extension:ty) => {
        $crate::export!(@ Scorer, scorer, export_scorer, $extension);
    };
    (post_processor: $extension:ty) => {
        $crate::export!(@ PostProcessor, post_processor, export_post_processor, $extension);
    };
    (@ $kind:ident, $world:ident, $export:ident, $extension:ty) => {
        const _: () = {
            const fn is_one<T: $crate::$kind>() {}
            is_one::<$extension>();
        };
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::component::Component<$extension>;
            $crate::component::$world::$export!(Exported with_types_in $crate::component::$world);
        };
    };
}
