//! Writing policies through the sidecar.

mod attacked;
mod bounds;
mod full_disk;
mod killed;
mod ledger;
mod overtaken;
mod passing;
mod plainer;
mod put_delete;
mod replay;
mod validation;
mod vanished;
