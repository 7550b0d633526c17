//! A second engine of decisions, written from the contract of the policy engine alone: the numbers in brackets are its
//! sections. It shares nothing with the program but JSON, and is as plain as can be, since it is there to be believed.
//!
//! What is random is checked against the evidence: the point that was drawn must lead to the provider that was chosen,
//! and a backoff must lie within its jitter.

mod agreement;
mod breaker;
mod conditions;
mod engine;
mod explanation;
mod policy;

pub(crate) use agreement::compare;
