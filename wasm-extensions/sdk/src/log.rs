//! Lines in the host's log. Always granted; the host cuts long lines and drops lines above its rate.
//! No personal data, no secrets.

/// Who should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the author, while an extension is being made.
    Debug,
    /// Worth keeping; no action is needed.
    Info,
    /// Something is odd and was dealt with.
    Warn,
    /// Something must be done.
    Error,
}

/// Writes one line.
pub fn write(level: Level, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::component::write_log(level, message);
    #[cfg(not(target_family = "wasm"))]
    crate::testing::with(|host| host.lines.push((level, message.to_owned())));
}

/// Writes one line for the author.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes one line worth keeping.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes one line about something odd.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes one line about something that must be dealt with.
pub fn error(message: &str) {
    write(Level::Error, message);
}
