//! What a registry has to show for an artifact: the signatures that cosign, or `ext sign`, put beside it.
//!
//! Both kinds sign a text that names the digest of the artifact's manifest. A bundle (format 0.3) is an envelope of DSSE
//! with a statement of in-toto; the older kind is a payload of its own under the tag `sha256-….sig`. Neither a transparency
//! log nor a certificate counts here: who signed is known by keys.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::key::PublicKey;
use crate::extensions::digest::ModuleDigest;

/// Bundles.
pub mod bundle {
    /// The type of a bundle, and of the artifact that holds one.
    pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    /// What types of bundles begin with.
    pub const PREFIX: &str = "application/vnd.dev.sigstore.bundle";
    /// The type of the payload.
    pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
    /// What a statement says that is a signature, and no attestation of something else.
    pub const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
    pub(super) const STATEMENTS: [&str; 2] = [
        "https://in-toto.io/Statement/v1",
        "https://in-toto.io/Statement/v0.1",
    ];
}

/// The older kind.
pub mod simple {
    /// The type of its payload.
    pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
    /// The annotation that holds the signature.
    pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
    pub(super) const KIND: &str = "cosign container image signature";
}

/// A text, and signatures over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Evidence {
    /// From a bundle.
    Bundle {
        /// The statement, in base64.
        payload: String,
        /// Each in base64.
        signatures: Vec<String>,
    },
    /// From under a tag.
    Simple {
        /// In base64.
        payload: String,
        /// In base64.
        signature: String,
    },
}

impl Evidence {
    /// Reads a bundle.
    ///
    /// # Errors
    /// When it holds no signature of an artifact.
    pub fn from_bundle(text: &[u8]) -> Result<Self, String> {
        let read: Value = serde_json::from_slice(text).map_err(|error| format!("not a bundle: {error}"))?;
        let envelope = &read["dsseEnvelope"];
        if envelope["payloadType"] != bundle::PAYLOAD_TYPE {
            return Err("not a bundle with a signature of an artifact".into());
        }
        let signatures = envelope["signatures"].as_array().into_iter().flatten();
        Ok(Self::Bundle {
            payload: envelope["payload"].as_str().unwrap_or_default().to_owned(),
            signatures: signatures
                .filter_map(|signature| Some(signature["sig"].as_str()?.to_owned()))
                .collect(),
        })
    }

    /// Of a payload under a tag, and the annotation beside it.
    pub fn from_simple(payload: &[u8], signature: &str) -> Self {
        Self::Simple {
            payload: BASE64_STANDARD.encode(payload),
            signature: signature.to_owned(),
        }
    }

    /// Whether a key signed that this is the artifact.
    pub fn is_by(&self, key: &PublicKey, artifact: &ModuleDigest) -> bool {
        self.judge(key, artifact).unwrap_or(false)
    }

    fn judge(&self, key: &PublicKey, artifact: &ModuleDigest) -> Option<bool> {
        let decode = |text: &str| BASE64_STANDARD.decode(text).ok();
        match self {
            Self::Bundle { payload, signatures } => {
                let payload = decode(payload)?;
                let signed = pre_authentication(&payload);
                let is_signed = signatures
                    .iter()
                    .filter_map(|signature| decode(signature))
                    .any(|signature| key.verifies(&signed, &signature));
                // Only then it is read.
                is_signed.then(|| states(&payload, artifact))
            }
            Self::Simple { payload, signature } => {
                let payload = decode(payload)?;
                let is_signed = key.verifies(&payload, &decode(signature)?);
                is_signed.then(|| is_payload_of(&payload, artifact))
            }
        }
    }

    /// A bundle that says that a key signed an artifact.
    ///
    /// # Errors
    /// What `sign` returns.
    pub fn sign_bundle(
        artifact: &ModuleDigest,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<Value, String> {
        let statement = json!({
            "_type": bundle::STATEMENTS[0],
            "subject": [{"digest": {"sha256": artifact.to_string()}}],
            "predicateType": bundle::PREDICATE,
            "predicate": {},
        });
        let payload = statement.to_string();
        let signature = sign(&pre_authentication(payload.as_bytes()))?;
        Ok(json!({
            "mediaType": bundle::MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": BASE64_STANDARD.encode(key.hint())}},
            "dsseEnvelope": {
                "payload": BASE64_STANDARD.encode(&payload),
                "payloadType": bundle::PAYLOAD_TYPE,
                "signatures": [{"sig": BASE64_STANDARD.encode(signature)}],
            },
        }))
    }

    /// The payload of the older kind: what is signed.
    pub fn simple_payload(artifact: &ModuleDigest, name: &str) -> String {
        json!({
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": format!("sha256:{artifact}")},
                "type": simple::KIND,
            },
            "optional": null,
        })
        .to_string()
    }
}

/// What DSSE signs.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let kind = bundle::PAYLOAD_TYPE;
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Whether a statement says that an artifact is signed.
fn states(payload: &[u8], artifact: &ModuleDigest) -> bool {
    let Ok(statement) = serde_json::from_slice::<Value>(payload) else {
        return false;
    };
    let is_statement = bundle::STATEMENTS
        .iter()
        .any(|known| statement["_type"] == *known);
    let mut subjects = statement["subject"].as_array().into_iter().flatten();
    let names_it = subjects.any(|subject| subject["digest"]["sha256"] == artifact.to_string());
    is_statement && statement["predicateType"] == bundle::PREDICATE && names_it
}

fn is_payload_of(payload: &[u8], artifact: &ModuleDigest) -> bool {
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else {
        return false;
    };
    let critical = &payload["critical"];
    critical["type"] == simple::KIND
        && critical["image"]["docker-manifest-digest"] == format!("sha256:{artifact}")
}

#[cfg(test)]
#[cfg(feature = "compiler")]
mod tests {
    use super::*;
    use crate::extensions::signing::{KeyKind, SecretKey};

    fn key() -> SecretKey {
        SecretKey::from_pem(&SecretKey::generate(KeyKind::P256).unwrap()).unwrap()
    }

    /// A bundle of any statement.
    fn bundled(key: &SecretKey, statement: &Value) -> Evidence {
        let payload = statement.to_string();
        let signature = key.sign(&pre_authentication(payload.as_bytes())).unwrap();
        Evidence::Bundle {
            payload: BASE64_STANDARD.encode(payload),
            signatures: vec![String::from("no base64"), BASE64_STANDARD.encode(signature)],
        }
    }

    #[test]
    fn a_bundle_counts_for_its_artifact_and_its_key() {
        let (key, other) = (key(), key());
        let (artifact, another) = (ModuleDigest::of(b"a"), ModuleDigest::of(b"b"));
        let bundle = Evidence::sign_bundle(&artifact, &key.public(), |message| key.sign(message)).unwrap();
        let evidence = Evidence::from_bundle(bundle.to_string().as_bytes()).unwrap();
        assert!(evidence.is_by(&key.public(), &artifact));
        assert!(!evidence.is_by(&other.public(), &artifact));
        assert!(!evidence.is_by(&key.public(), &another));
        // It outlives a restart.
        let text = serde_json::to_string(&evidence).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
        let mut wrong = bundle;
        wrong["dsseEnvelope"]["payloadType"] = json!("text/plain");
        assert!(Evidence::from_bundle(wrong.to_string().as_bytes()).is_err());
        assert!(Evidence::from_bundle(b"no bundle").is_err());
    }

    #[test]
    fn what_a_key_says_of_an_artifact_is_a_signature_only_if_it_says_so() {
        let key = key();
        let artifact = ModuleDigest::of(b"a");
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": "00"}}, {"digest": {"sha256": artifact.to_string()}}],
            "predicateType": bundle::PREDICATE,
        });
        let with = |name: &str, value: Value| {
            let mut other = statement.clone();
            other[name] = value;
            bundled(&key, &other).is_by(&key.public(), &artifact)
        };
        assert!(with("_type", json!("https://in-toto.io/Statement/v0.1")));
        // An attestation, such as of how it was built, or that it has a hole.
        assert!(!with("predicateType", json!("https://slsa.dev/provenance/v1")));
        assert!(!with("predicateType", Value::Null));
        assert!(!with("_type", json!("https://example.com/Statement")));
        assert!(!with(
            "subject",
            json!([{"digest": {"sha512": artifact.to_string()}}])
        ));
        assert!(!with("subject", json!([])));
        assert!(!with("subject", Value::Null));
    }

    #[test]
    fn the_older_kind_counts_for_the_artifact_that_its_payload_names() {
        let key = key();
        let (artifact, another) = (ModuleDigest::of(b"a"), ModuleDigest::of(b"b"));
        let evidence = |payload: &str| {
            let signature = BASE64_STANDARD.encode(key.sign(payload.as_bytes()).unwrap());
            Evidence::from_simple(payload.as_bytes(), &signature)
        };
        let payload = Evidence::simple_payload(&artifact, "r.example/a");
        assert!(evidence(&payload).is_by(&key.public(), &artifact));
        assert!(!evidence(&payload).is_by(&key.public(), &another));
        let other = payload.replace("cosign container image signature", "another kind");
        assert!(!evidence(&other).is_by(&key.public(), &artifact));
        assert!(!evidence("no json").is_by(&key.public(), &artifact));
        let unsigned = Evidence::from_simple(payload.as_bytes(), "");
        assert!(!unsigned.is_by(&key.public(), &artifact));
    }
}
