//! The keys of those who sign. They are never printed.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};

use super::key::{PublicKey, pem};

/// What stands before the seed of an Ed25519 key in PKCS#8.
const ED25519_PREFIX: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyKind {
    /// ECDSA over P-256: what cosign makes.
    #[value(name = "ecdsa-p256")]
    P256,
    /// Ed25519.
    #[value(name = "ed25519")]
    Ed25519,
}

/// A key to sign with.
pub struct SecretKey {
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("public", &self.public())
            .finish_non_exhaustive()
    }
}

impl SecretKey {
    /// Makes a key: PKCS#8 in PEM, as openssl reads it and `cosign import-key-pair` takes it.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate(kind: KeyKind) -> Result<SecretString, String> {
        let random = SystemRandom::new();
        let no_random = |_| "the system gives no random numbers".to_owned();
        let der = match kind {
            KeyKind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                .map_err(no_random)?
                .as_ref()
                .to_vec(),
            KeyKind::Ed25519 => {
                let mut seed = [0; 32];
                random.fill(&mut seed).map_err(no_random)?;
                [ED25519_PREFIX, &seed].concat()
            }
        };
        Ok(pem("PRIVATE KEY", &der).into())
    }

    /// Reads a key in PEM.
    ///
    /// # Errors
    /// When it is none, or encrypted, or of another kind; nothing of it is in the reason.
    pub fn from_pem(text: &SecretString) -> Result<Self, String> {
        let text = text.expose_secret();
        for (label, remedy) in [
            (
                "ENCRYPTED SIGSTORE",
                "it is a key of cosign: sign with `cosign sign --key`, or make a key with `ext keygen`",
            ),
            (
                "ENCRYPTED COSIGN",
                "it is a key of cosign: sign with `cosign sign --key`, or make a key with `ext keygen`",
            ),
            (
                "ENCRYPTED PRIVATE KEY",
                "it is encrypted: `openssl pkey -in KEY` writes it out without its password",
            ),
            (
                "EC PRIVATE KEY",
                "it is not PKCS#8: `openssl pkcs8 -topk8 -nocrypt -in KEY` makes it so",
            ),
        ] {
            if text.contains(&format!("-----BEGIN {label}")) {
                return Err(remedy.to_owned());
            }
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_error| "it holds no private key in PEM (PKCS#8)".to_owned())?;
        let der = der.secret_pkcs8_der();
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random);
        let pair = match p256 {
            Ok(pair) => Pair::P256(pair),
            Err(_) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                .map(Pair::Ed25519)
                .map_err(|_| "its key is neither ECDSA over P-256 nor Ed25519".to_owned())?,
        };
        Ok(Self { pair, random })
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        match &self.pair {
            Pair::P256(pair) => {
                let mut key = [0; 65];
                key.copy_from_slice(pair.public_key().as_ref());
                PublicKey::P256(key)
            }
            Pair::Ed25519(pair) => {
                let mut key = [0; 32];
                key.copy_from_slice(pair.public_key().as_ref());
                PublicKey::Ed25519(key)
            }
        }
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match &self.pair {
            Pair::P256(pair) => {
                let signature = pair
                    .sign(&self.random, message)
                    .map_err(|_| "the system gives no random numbers".to_owned())?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// A signature over a module's bytes, as a record has it.
    ///
    /// # Errors
    /// As those of [`sign`](Self::sign).
    pub fn sign_module(&self, module: &[u8]) -> Result<String, String> {
        Ok(BASE64_STANDARD.encode(self.sign(module)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_signs_its_public_key_verifies_and_no_other() {
        let keys = [KeyKind::P256, KeyKind::Ed25519, KeyKind::P256].map(|kind| {
            let text = SecretKey::generate(kind).unwrap();
            SecretKey::from_pem(&text).unwrap()
        });
        for (index, key) in keys.iter().enumerate() {
            let signature = key.sign(b"message").unwrap();
            for (other, known) in keys.iter().enumerate() {
                let public = PublicKey::from_pem(&known.public().to_pem()).unwrap();
                assert_eq!(public.verifies(b"message", &signature), index == other);
            }
        }
        assert!(format!("{:?}", keys[0]).contains(&keys[0].public().id()));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_why() {
        for (text, says) in [
            ("", "no private key"),
            ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", "cosign"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "encrypted"),
            ("-----BEGIN EC PRIVATE KEY-----", "openssl pkcs8"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "neither",
            ),
        ] {
            let reason = SecretKey::from_pem(&text.to_owned().into()).unwrap_err();
            assert!(reason.contains(says), "{reason}");
        }
    }
}
