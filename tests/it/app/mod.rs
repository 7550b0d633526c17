//! A sidecar's life: configuration and files that change, an orderly stop, one sidecar that replaces another.

mod deaths;
mod descriptors;
mod hung_disk;
mod process_1;
mod reload;
mod rolling;
mod stop;
mod stuck;
mod supervised;
mod surroundings;
mod unread_log;
