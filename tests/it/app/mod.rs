//! A sidecar's life: configuration and files that change, an orderly stop, one sidecar that replaces another.

mod reload;
mod rolling;
mod stop;
