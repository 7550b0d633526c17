//! Who has to have signed a module before it is loaded, and for whom it is called.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    evidence::Evidence,
    key::{PublicKey, read_keys},
};
use crate::extensions::digest::ModuleDigest;

/// Different keys, of all tenants together.
const MAX_KEYS: usize = 64;

/// Signatures that modules must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignaturesConfig {
    /// A module is loaded only if one of `keys` signed it.
    pub required: bool,
    /// The public keys of signers, ECDSA over P-256 or Ed25519: files in PEM, or the PEM itself. They are read at the start.
    pub keys: Vec<String>,
    /// What else is true of a tenant's calls, by tenant.
    pub tenants: BTreeMap<String, TenantSignatures>,
}

/// Signatures that modules must have to be called for a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSignatures {
    /// An extension is found only if one of `keys` signed its module.
    pub required: bool,
    /// As `extensions.signatures.keys`, in their place. None: the same.
    pub keys: Vec<String>,
}

impl Default for TenantSignatures {
    fn default() -> Self {
        Self {
            required: true,
            keys: Vec::new(),
        }
    }
}

/// Some of the keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KeySet(u64);

impl KeySet {
    /// Those of both.
    pub(in crate::extensions) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has_one_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What is demanded of a module.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    required: bool,
    keys: KeySet,
}

impl Demand {
    fn is_met(self, signed_by: KeySet) -> bool {
        !self.required || signed_by.has_one_of(self.keys)
    }
}

/// Whose signatures count, for whom.
#[derive(Debug, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
    everyone: Demand,
    tenants: HashMap<Box<str>, Demand>,
    /// The keys could not be read: nothing is loaded.
    broken: Option<String>,
}

impl Trust {
    /// Reads the keys.
    ///
    /// # Errors
    /// When one of them is none, or a signature is required and there is no key.
    pub fn read(config: &SignaturesConfig) -> Result<Self, String> {
        let mut trust = Self::default();
        trust.everyone = Demand {
            required: config.required,
            keys: trust.add(&config.keys)?,
        };
        for (tenant, of) in &config.tenants {
            let own = trust
                .add(&of.keys)
                .map_err(|reason| format!("tenants.{tenant}: {reason}"))?;
            let demand = Demand {
                required: of.required,
                keys: if of.keys.is_empty() {
                    trust.everyone.keys
                } else {
                    own
                },
            };
            trust.tenants.insert(tenant.as_str().into(), demand);
        }
        for (demand, of) in std::iter::once((&trust.everyone, "keys".to_owned())).chain(
            trust
                .tenants
                .iter()
                .map(|(tenant, demand)| (demand, format!("tenants.{tenant}.keys"))),
        ) {
            if demand.required && demand.keys.is_empty() {
                return Err(format!("{of}: signatures are required, and no key is named"));
            }
        }
        Ok(trust)
    }

    /// As [`read`](Self::read); where that fails, nothing is loaded.
    pub(in crate::extensions) fn read_or_refuse(config: &SignaturesConfig) -> Self {
        Self::read(config).unwrap_or_else(|reason| Self {
            broken: Some(format!("extensions.signatures.{reason}")),
            ..Self::default()
        })
    }

    fn add(&mut self, named: &[String]) -> Result<KeySet, String> {
        let mut set = KeySet::default();
        for key in read_keys(named).map_err(|reason| format!("keys: {reason}"))? {
            let index = match self.keys.iter().position(|known| *known == key) {
                Some(index) => index,
                None if self.keys.len() < MAX_KEYS => {
                    self.keys.push(key);
                    self.keys.len() - 1
                }
                None => return Err(format!("keys: there are more than {MAX_KEYS}")),
            };
            set.add(index);
        }
        Ok(set)
    }

    /// Whether a registry is asked for signatures.
    pub(in crate::extensions) fn wants_signatures(&self) -> bool {
        self.everyone.required || self.tenants.values().any(|demand| demand.required)
    }

    /// Whether what a module shows depends on the tenant.
    pub(in crate::extensions) fn knows_tenants(&self) -> bool {
        !self.tenants.is_empty()
    }

    /// Whether an extension with these signatures is called for a tenant.
    pub(in crate::extensions) fn admits(&self, tenant: &str, signed_by: KeySet) -> bool {
        let demand = self.tenants.get(tenant).unwrap_or(&self.everyone);
        demand.is_met(signed_by)
    }

    /// Who signed an artifact.
    pub(in crate::extensions) fn signers(&self, artifact: &ModuleDigest, evidence: &[Evidence]) -> KeySet {
        let mut signers = KeySet::default();
        for (index, key) in self.keys.iter().enumerate() {
            if evidence.iter().any(|evidence| evidence.is_by(key, artifact)) {
                signers.add(index);
            }
        }
        signers
    }

    /// Who signed a module, by the signature in its record.
    ///
    /// # Errors
    /// When none of the keys did.
    pub(in crate::extensions) fn signers_in_record(
        &self,
        module: &[u8],
        signature: &str,
    ) -> Result<KeySet, String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if self.keys.is_empty() {
            return Err(
                "its record has a signature, and extensions.signatures.keys names no key to verify it: name the signer's key"
                    .into(),
            );
        }
        let signature = BASE64_STANDARD
            .decode(signature)
            .map_err(|_invalid| "the signature of its record is not base64".to_owned())?;
        let mut signers = KeySet::default();
        for (index, key) in self.keys.iter().enumerate() {
            if key.verifies(module, &signature) {
                signers.add(index);
            }
        }
        if signers.is_empty() {
            return Err(
                "the signature of its record is not of this module by a key of extensions.signatures: sign the module anew \
                 with `ext sign`, or name the signer's key"
                    .into(),
            );
        }
        Ok(signers)
    }

    /// Whether a module with these signatures is loaded, for one tenant at least. `shown`: signatures that it has, by
    /// whomever.
    ///
    /// # Errors
    /// Why it is not.
    pub(in crate::extensions) fn judge(&self, signed_by: KeySet, shown: usize) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut demands = std::iter::once(&self.everyone).chain(self.tenants.values());
        if demands.any(|demand| demand.is_met(signed_by)) {
            return Ok(());
        }
        if shown == 0 {
            return Err(
                "it is not signed, and extensions.signatures.required says that it must be: sign it with `ext sign`".into(),
            );
        }
        let keys: Vec<String> = self.keys.iter().map(PublicKey::id).take(8).collect();
        Err(format!(
            "it is signed ({shown}), and not by a key of extensions.signatures ({}): name the signer's key, if it may be \
             trusted",
            keys.join(", ")
        ))
    }
}
