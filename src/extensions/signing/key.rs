//! Public keys, as PEM files have them.

use std::{fmt, path::Path};

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::plain_file;

/// What stands before the point of a key on P-256: its algorithm, and how long it is.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// As that of Ed25519.
const ED25519_PREFIX: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;
/// What a configuration begins with that holds a key itself.
const BEGIN: &str = "-----BEGIN";

/// The public key of a signer.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// ECDSA over P-256 with SHA-256, as cosign makes them.
    P256([u8; P256_BYTES]),
    /// Ed25519.
    Ed25519([u8; ED25519_BYTES]),
}

impl PublicKey {
    /// Reads a key in PEM.
    ///
    /// # Errors
    /// When it is none, or of another kind.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("it holds no public key in PEM: {error}"))?;
        let p256 = der.strip_prefix(P256_PREFIX).and_then(|key| key.try_into().ok());
        let ed25519 = || der.strip_prefix(ED25519_PREFIX)?.try_into().ok();
        p256.map(Self::P256)
            .or_else(|| ed25519().map(Self::Ed25519))
            .ok_or_else(|| "its key is neither ECDSA over P-256 nor Ed25519".to_owned())
    }

    /// The key in PEM.
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.to_der())
    }

    fn to_der(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => [P256_PREFIX, key].concat(),
            Self::Ed25519(key) => [ED25519_PREFIX, key].concat(),
        }
    }

    /// A name for people: the beginning of the SHA-256 of its DER form.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.to_der())[..8])
    }

    /// What signatures by a key are said to be by, in bundles: the SHA-256 of its DER form.
    pub fn hint(&self) -> [u8; 32] {
        Sha256::digest(self.to_der()).into()
    }

    /// Whether this key signed a message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
                .verify(message, signature)
                .is_ok(),
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// Bytes in PEM.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Reads the keys that a configuration names: files, or their content itself.
///
/// # Errors
/// The first that is none.
pub fn read_keys(named: &[String]) -> Result<Vec<PublicKey>, String> {
    let read = |named: &String| {
        if named.trim_start().starts_with(BEGIN) {
            return PublicKey::from_pem(named);
        }
        let text =
            plain_file::read_to_string(Path::new(named)).map_err(|error| format!("{named}: {error}"))?;
        PublicKey::from_pem(&text).map_err(|reason| format!("{named}: {reason}"))
    };
    named.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey` and `openssl pkey -pubout`; the signatures over `message` by `openssl pkeyutl -sign
    /// -rawin`.
    const KEYS: [(&str, &str); 2] = [
        (
            include_str!("../../../tests/golden/signatures/openssl-p256.pub"),
            include_str!("../../../tests/golden/signatures/openssl-p256.sig"),
        ),
        (
            include_str!("../../../tests/golden/signatures/openssl-ed25519.pub"),
            include_str!("../../../tests/golden/signatures/openssl-ed25519.sig"),
        ),
    ];

    #[test]
    fn signatures_of_openssl_verify_and_others_do_not() {
        use base64::{Engine, prelude::BASE64_STANDARD};
        for (pem, signature) in KEYS {
            let key = PublicKey::from_pem(pem).unwrap();
            assert_eq!(key.to_pem(), pem);
            let signature = BASE64_STANDARD.decode(signature.trim()).unwrap();
            assert!(key.verifies(b"message", &signature));
            assert!(!key.verifies(b"messagf", &signature));
            for at in 0..signature.len() {
                let mut other = signature.clone();
                other[at] ^= 1;
                assert!(!key.verifies(b"message", &other), "{at}");
            }
            assert!(!key.verifies(b"message", &[]));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "key",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(PublicKey::from_pem(text).is_err(), "{text}");
        }
        let missing = read_keys(&["/nowhere/a.pub".into()]).unwrap_err();
        assert!(missing.contains("/nowhere/a.pub"), "{missing}");
        assert_eq!(read_keys(&[KEYS[0].0.to_owned()]).unwrap().len(), 1);
    }
}
