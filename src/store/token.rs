//! The token that clients must send, as its file has it now.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The token, and where it comes from.
#[derive(Debug)]
pub(super) struct Token {
    /// `None` where it never changes.
    file: Option<PathBuf>,
    /// `None` admits every client.
    current: ArcSwapOption<SecretString>,
    /// What was wrong with the file when it was read last.
    trouble: Mutex<Option<String>>,
}

impl Token {
    /// The token of the file or, without one, this.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn open(token: Option<SecretString>, file: Option<PathBuf>) -> Result<Self, String> {
        let token = match &file {
            Some(file) => Some(read(file)?),
            None => token,
        };
        Ok(Self {
            file,
            current: ArcSwapOption::new(token.map(Arc::new)),
            trouble: Mutex::default(),
        })
    }

    /// Whether the request has the token.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.current.load_full() else {
            return true;
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, given)| given.trim());
        // Digests have one length, so the time taken reveals nothing about the length of the token either.
        let is_same = Sha256::digest(given).ct_eq(&Sha256::digest(token.expose_secret()));
        bool::from(is_same)
    }

    /// Reads the file again. A file that cannot be used changes nothing.
    pub(super) fn refresh(&self) {
        let Some(file) = &self.file else { return };
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match read(file) {
            Ok(token) => {
                *trouble = None;
                let current = self.current.load_full();
                if current.is_none_or(|current| current.expose_secret() != token.expose_secret()) {
                    self.current.store(Some(Arc::new(token)));
                    tracing::info!(file = %file.display(), "The token is another from now on.");
                }
            }
            Err(reason) => {
                if trouble.as_ref() != Some(&reason) {
                    tracing::warn!(
                        reason,
                        "The token's file cannot be used; the token stays as it was."
                    );
                    *trouble = Some(reason);
                }
            }
        }
    }
}

fn read(file: &Path) -> Result<SecretString, String> {
    let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match token.trim() {
        "" => Err(format!(
            "{} is empty: an empty token protects nothing",
            file.display()
        )),
        token => Ok(SecretString::from(token)),
    }
}
