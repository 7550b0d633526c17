//! Keeping memory like HEIR, and what is served when that is not possible.

mod broken;
mod cold_start;
mod disk;
mod history;
mod hostile;
mod levels;
mod races;
mod restore;
mod truth;
