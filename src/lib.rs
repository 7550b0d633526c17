//! A caching proxy and decision engine that runs beside each Beamline Router and keeps it answering when the policy store
//! (HEIR) cannot. It answers policy lookups and requests for decisions from memory, whether HEIR is up, slow, unavailable,
//! restored from a backup, or sending nonsense.
//!
//! ```text
//!  Router ─ listener ─► route ─┬─ lookup ─► snapshot ──────────────────────────────────────────┐
//!                              ├─ intake (decisions, results) ─► snapshot + decide ◄► memory ──┤
//!                              ├─ write ──► HEIR, or the journal ─► snapshot ──────────────────┼─► respond ─► Router
//!                              └─ forward (the rest) ─► HEIR ──────────────────────────────────┘
//!  operator ─ listener ─► admin ─► operate ─► write, refresh, intake
//!
//!  refresh (HEIR | disk | directory) ─► policy, extensions ─► snapshot          health_check ─► memory
//! ```
//!
//! The rooms, each of which uses only those below it:
//!
//! | room | purpose |
//! |---|---|
//! | [`cli`] | the commands |
//! | [`supervise`] | the small process that `run --supervised` puts above the sidecar, and restarts it |
//! | [`app`] | builds the parts from a configuration, runs them, reloads them, shuts them down |
//! | [`config`] | the configuration: the sections' own types, composed and checked |
//! | [`testing`] | decision cases, for authors of policies |
//! | [`store`] | the embedded HEIR |
//! | [`injector`], [`inject`] | the webhook of Kubernetes that puts the sidecar into pods; what it puts there |
//! | [`admin`] | the admin listener |
//! | [`route`] | the data plane over HTTP |
//! | [`operate`] | everything that an operator can do or ask |
//! | [`intake`] | the use cases of decisions, without a transport |
//! | [`health_check`], [`readiness`], [`heartbeat`] | active checks of providers; whether the sidecar is ready, and its threads run |
//! | [`write`] | writes of policies: HEIR, the journal, replay |
//! | [`refresh`] | keeps the snapshot equal to HEIR |
//! | [`forward`] | passes all other requests to HEIR |
//! | [`snapshot`] | the immutable policies and extensions of the moment, replaced as a whole |
//! | [`extensions`] | extensions: registry, sandbox, scheduling |
//! | [`heir`] | the client of HEIR |
//! | [`decide`] | the decision, and what decisions remember |
//! | [`telemetry`] | logs and the registry of metrics |
//! | [`listener`], [`respond`] | connections; answers over HTTP |
//! | [`policy`], [`failure`], [`clock`], [`parent`], [`yaml`] … | leaves |

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decide;
pub mod durable_file;
pub mod extensions;
pub mod failure;
pub mod fair_share;
pub mod forward;
pub mod health_check;
pub mod heartbeat;
pub mod heir;
pub mod inject;
pub mod injector;
pub mod intake;
pub mod listener;
pub mod operate;
pub mod parent;
pub mod plain_file;
pub mod policy;
pub mod readiness;
pub mod refresh;
pub mod respond;
pub mod route;
pub mod snapshot;
mod split_mix;
pub mod state_lock;
pub mod store;
pub mod supervise;
pub mod telemetry;
pub mod testing;
mod thread_priority;
pub mod write;
pub mod yaml;
