//! Writing policies through the sidecar.

mod killed;
mod overtaken;
mod put_delete;
mod replay;
mod validation;
