//! Everything that needs real sockets, in one binary so that it links once. The folders are those of `src`; what
//! runs long is in `soak`, and what the tests share in `support`.

mod app;
mod arrows;
mod cli;
mod config;
mod decide;
mod extensions;
mod forward;
mod health_check;
mod heir;
mod inject;
mod listener;
mod lookup;
mod operate;
mod refresh;
mod soak;
mod store;
mod support;
mod writes;
