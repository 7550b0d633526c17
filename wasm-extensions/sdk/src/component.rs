//! The component's side of [`export!`](crate::export): bindings, and the way between them and the
//! types of this crate. Only for that macro.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unsafe_code,
    clippy::allow_attributes,
    clippy::all,
    reason = "most of it is generated"
)]

use std::{marker::PhantomData, panic};

use serde::de::DeserializeOwned;

use crate::{Extension, Json, config, log};

pub mod host {
    wit_bindgen::generate!({ path: "../wit", world: "host" });
}

macro_rules! bindings {
    ($module:ident, $world:literal, $export:literal, $place:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit",
                world: $world,
                with: {
                    "beamline:extension/types@0.1.0": crate::component::host::beamline::extension::types,
                    "beamline:extension/log@0.1.0": crate::component::host::beamline::extension::log,
                    "beamline:extension/clock@0.1.0": crate::component::host::beamline::extension::clock,
                    "beamline:extension/random@0.1.0": crate::component::host::beamline::extension::random,
                    "beamline:extension/metrics@0.1.0": crate::component::host::beamline::extension::metrics,
                },
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: $place,
            });
        }
    };
}

bindings!(
    pre_processor,
    "pre-processor",
    "export_pre_processor",
    "beamline_extension_sdk::component::pre_processor"
);
bindings!(
    validator,
    "validator",
    "export_validator",
    "beamline_extension_sdk::component::validator"
);
bindings!(
    scorer,
    "scorer",
    "export_scorer",
    "beamline_extension_sdk::component::scorer"
);
bindings!(
    post_processor,
    "post-processor",
    "export_post_processor",
    "beamline_extension_sdk::component::post_processor"
);

use host::beamline::extension::{self as wire, types as t};

pub(crate) fn write_log(level: log::Level, message: &str) {
    let level = match level {
        log::Level::Debug => wire::log::Level::Debug,
        log::Level::Info => wire::log::Level::Info,
        log::Level::Warn => wire::log::Level::Warn,
        log::Level::Error => wire::log::Level::Error,
    };
    wire::log::write(level, message);
}

pub(crate) fn now_ms() -> u64 {
    wire::clock::now_ms()
}

pub(crate) fn next_u64() -> u64 {
    wire::random::next_u64()
}

pub(crate) fn count(name: &str, amount: u64) {
    wire::metrics::count(name, amount);
}

/// An extension as the bindings see it.
pub struct Component<E>(PhantomData<E>);

/// A panic becomes a line in the host's log, and then a trap.
fn tell_panics() {
    panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
}

fn check_config<E: Extension>(config: String) -> Result<(), Vec<t::Problem>> {
    tell_panics();
    E::check_config(&Json::from_text(config)).map_err(|problems| {
        problems
            .into_iter()
            .map(|crate::Problem { path, message }| t::Problem { path, message })
            .collect()
    })
}

fn call<C: DeserializeOwned>(call: t::Call) -> Result<crate::Call<C>, t::Failure> {
    tell_panics();
    let t::Call {
        tenant_id,
        policy_id,
        trace_id,
        request_id,
        context,
        config,
        remaining_ms,
    } = call;
    Ok(crate::Call {
        tenant_id,
        policy_id,
        trace_id,
        request_id,
        context: Json::from_text(context),
        config: config::read(&config).map_err(failure)?,
        remaining_ms,
    })
}

fn failure(failure: crate::Failure) -> t::Failure {
    let crate::Failure { code, message } = failure;
    t::Failure { code, message }
}

fn message(message: t::Message) -> crate::Message {
    let t::Message {
        message_id,
        message_type,
        payload,
        metadata,
    } = message;
    crate::Message {
        message_id,
        message_type,
        payload: Json::from_text(payload),
        metadata: Json::from_text(metadata),
    }
}

fn message_out(message: crate::Message) -> t::Message {
    let crate::Message {
        message_id,
        message_type,
        payload,
        metadata,
    } = message;
    t::Message {
        message_id,
        message_type,
        payload: payload.into_text(),
        metadata: metadata.into_text(),
    }
}

fn candidate(candidate: t::Candidate) -> crate::Candidate {
    let t::Candidate {
        provider_id,
        weight,
        breaker,
        latency_ms,
        error_rate,
        cost,
    } = candidate;
    crate::Candidate {
        provider_id,
        weight,
        breaker: match breaker {
            t::BreakerState::Closed => crate::BreakerState::Closed,
            t::BreakerState::HalfOpen => crate::BreakerState::HalfOpen,
            t::BreakerState::Open => crate::BreakerState::Open,
        },
        latency_ms,
        error_rate,
        cost,
    }
}

impl<E: crate::PreProcessor> pre_processor::Guest for Component<E> {
    fn check_config(config: String) -> Result<(), Vec<t::Problem>> {
        check_config::<E>(config)
    }

    fn process(about: t::Call, sent: t::Message) -> Result<t::PreOutput, t::Failure> {
        let output = E::process(&call(about)?, message(sent)).map_err(failure)?;
        Ok(t::PreOutput {
            message: output.message.map(message_out),
            context: output.context.map(Json::into_text),
        })
    }
}

impl<E: crate::Validator> validator::Guest for Component<E> {
    fn check_config(config: String) -> Result<(), Vec<t::Problem>> {
        check_config::<E>(config)
    }

    fn validate(about: t::Call, sent: t::Message) -> Result<t::Verdict, t::Failure> {
        Ok(
            match E::validate(&call(about)?, &message(sent)).map_err(failure)? {
                crate::Verdict::Accept => t::Verdict::Accept,
                crate::Verdict::Reject(crate::Rejection { reason, details }) => {
                    t::Verdict::Reject(t::Rejection {
                        reason,
                        details: details.into_text(),
                    })
                }
            },
        )
    }
}

impl<E: crate::Scorer> scorer::Guest for Component<E> {
    fn check_config(config: String) -> Result<(), Vec<t::Problem>> {
        check_config::<E>(config)
    }

    fn score(
        about: t::Call,
        sent: t::Message,
        candidates: Vec<t::Candidate>,
    ) -> Result<Vec<t::Score>, t::Failure> {
        let candidates: Vec<_> = candidates.into_iter().map(candidate).collect();
        let scores = E::score(&call(about)?, &message(sent), &candidates).map_err(failure)?;
        Ok(scores
            .into_iter()
            .map(|crate::Score { provider_id, factor }| t::Score { provider_id, factor })
            .collect())
    }
}

impl<E: crate::PostProcessor> post_processor::Guest for Component<E> {
    fn check_config(config: String) -> Result<(), Vec<t::Problem>> {
        check_config::<E>(config)
    }

    fn process(about: t::Call, made: t::Decision) -> Result<Option<String>, t::Failure> {
        let t::Decision {
            provider_id,
            reason,
            priority,
        } = made;
        let decision = crate::Decision {
            provider_id,
            reason,
            priority,
        };
        let added = E::process(&call(about)?, &decision).map_err(failure)?;
        Ok(added.map(Json::into_text))
    }
}
