//! The injector's own authority, and the certificate that it signs: what is made anew, and when. Pure, up to the keys.
//!
//! Trust overlaps: a new authority is published beside the old one for a while before it signs anything, and the old one stays for
//! a while after. All of it is derived from what is in the Secret and the time, so replicas need no leader.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Certificates are valid from a moment ago: the clocks of nodes differ.
const BACKDATED: u64 = 5 * 60;

/// How long certificates are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// An authority; the next one is made when a sixth is left, which must be more than `leaf`.
    pub authority: Duration,
    /// The certificate; the next one is made when a third is left.
    pub leaf: Duration,
    /// How long two authorities are trusted beside each other, before the new one signs and after.
    pub overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            authority: 365 * day,
            leaf: 30 * day,
            overlap: Duration::from_secs(60 * 60),
        }
    }
}

/// Everything that is in the Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) state: State,
    /// The key of the newest authority, in PEM.
    pub(super) authority_key: String,
    /// The certificate, in PEM.
    pub(super) leaf: String,
    /// Its key, in PEM.
    pub(super) leaf_key: String,
}

/// What is known of the certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Those that are trusted, the newest first.
    pub(super) authorities: Vec<Authority>,
    /// Of the certificate.
    pub(super) leaf: Leaf,
}

/// One authority. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authority {
    pub(super) name: String,
    pub(super) certificate: String,
    pub(super) issued: u64,
    pub(super) expires: u64,
}

/// The certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaf {
    /// The name of the authority that signed it.
    pub(super) authority: String,
    /// The names of the Service.
    pub(super) names: Vec<String>,
    pub(super) issued: u64,
    pub(super) expires: u64,
}

impl Material {
    /// The certificates of all trusted authorities.
    pub(super) fn bundle(&self) -> String {
        let authorities = self.state.authorities.iter();
        authorities
            .map(|authority| authority.certificate.as_str())
            .collect()
    }

    /// Whether a part is there that others need.
    pub(super) fn is_whole(&self) -> bool {
        let signed_by = |authority: &Authority| authority.name == self.state.leaf.authority;
        self.state.authorities.iter().any(signed_by)
    }
}

/// What is to be in the Secret from now on; `None`: what is there.
///
/// # Errors
/// When a key cannot be read or made.
pub(super) fn next(
    now: u64,
    there: Option<&Material>,
    names: &[String],
    lifetimes: &Lifetimes,
) -> Result<Option<Material>, rcgen::Error> {
    let overlap = lifetimes.overlap.as_secs();
    let Some(there) = there else {
        return fresh(now, names, lifetimes).map(Some);
    };
    let (authorities, leaf) = (&there.state.authorities, &there.state.leaf);
    let Some(newest) = authorities
        .first()
        .filter(|newest| newest.expires > now && there.is_whole())
    else {
        return fresh(now, names, lifetimes).map(Some);
    };
    let left = |expires: u64| expires.saturating_sub(now);
    let is_signed_by_newest = leaf.authority == newest.name;
    let is_worn = left(leaf.expires) < lifetimes.leaf.as_secs() / 3 || leaf.names != names;
    let is_due = !is_signed_by_newest && now >= newest.issued + overlap;
    if is_worn || is_due {
        return sign(now, there, names, lifetimes).map(Some);
    }
    if is_signed_by_newest && authorities.len() > 1 && now >= leaf.issued + overlap {
        let mut next = there.clone();
        next.state.authorities.truncate(1);
        return Ok(Some(next));
    }
    if authorities.len() == 1 && left(newest.expires) < lifetimes.authority.as_secs() / 6 {
        let (authority, key) = new_authority(now, lifetimes)?;
        let mut next = there.clone();
        next.state.authorities.insert(0, authority);
        next.authority_key = key;
        return Ok(Some(next));
    }
    Ok(None)
}

/// A new authority and a certificate by it.
fn fresh(now: u64, names: &[String], lifetimes: &Lifetimes) -> Result<Material, rcgen::Error> {
    let (authority, authority_key) = new_authority(now, lifetimes)?;
    let leaf = Leaf {
        authority: authority.name.clone(),
        names: names.to_vec(),
        issued: now,
        expires: now,
    };
    let unsigned = Material {
        state: State {
            authorities: vec![authority],
            leaf,
        },
        authority_key,
        leaf: String::new(),
        leaf_key: String::new(),
    };
    sign(now, &unsigned, names, lifetimes)
}

/// A new certificate by the newest authority.
fn sign(
    now: u64,
    there: &Material,
    names: &[String],
    lifetimes: &Lifetimes,
) -> Result<Material, rcgen::Error> {
    let Some(authority) = there.state.authorities.first() else {
        return fresh(now, names, lifetimes);
    };
    let issuer = Issuer::new(
        authority_params(&authority.name, authority.issued, authority.expires)?,
        KeyPair::from_pem(&there.authority_key)?,
    );
    let expires = (now + lifetimes.leaf.as_secs()).min(authority.expires);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named(names.first().map_or("beamline-sidecar-injector", String::as_str));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (at(now - BACKDATED), at(expires));
    let key = KeyPair::generate()?;
    let mut next = there.clone();
    next.leaf = params.signed_by(&key, &issuer)?.pem();
    next.leaf_key = key.serialize_pem();
    next.state.leaf = Leaf {
        authority: authority.name.clone(),
        names: names.to_vec(),
        issued: now,
        expires,
    };
    Ok(next)
}

fn new_authority(now: u64, lifetimes: &Lifetimes) -> Result<(Authority, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    // Two that are trusted at the same time must not be taken for one another.
    let mark = hex::encode(fastrand::u64(..).to_be_bytes());
    let name = format!("beamline-sidecar-injector {mark}");
    let expires = now + lifetimes.authority.as_secs();
    let certificate = authority_params(&name, now, expires)?.self_signed(&key)?.pem();
    let authority = Authority {
        name,
        certificate,
        issued: now,
        expires,
    };
    Ok((authority, key.serialize_pem()))
}

fn authority_params(name: &str, issued: u64, expires: u64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (at(issued - BACKDATED), at(expires));
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn at(seconds: u64) -> OffsetDateTime {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 24 * 60 * 60;

    fn names() -> Vec<String> {
        vec![
            "injector.apps.svc".to_owned(),
            "injector.apps.svc.cluster.local".to_owned(),
        ]
    }

    fn step(now: u64, there: &Material) -> Option<Material> {
        next(now, Some(there), &names(), &Lifetimes::default()).unwrap()
    }

    fn first() -> Material {
        next(NOW, None, &names(), &Lifetimes::default()).unwrap().unwrap()
    }

    /// Whether an API server that trusts this bundle takes this certificate.
    fn is_trusted(bundle: &str, leaf: &str, now: u64) -> bool {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
        let name = ServerName::try_from("injector.apps.svc").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn the_first_certificate_is_trusted_and_stays_until_a_third_of_its_time_is_left() {
        let first = first();
        assert!(is_trusted(&first.bundle(), &first.leaf, NOW));
        assert_eq!(step(NOW, &first), None);
        assert_eq!(step(NOW + 20 * DAY, &first), None);
        let second = step(NOW + 20 * DAY + 1, &first).unwrap();
        assert_ne!(second.leaf, first.leaf);
        assert_eq!(second.state.authorities, first.state.authorities);
        assert!(is_trusted(&first.bundle(), &second.leaf, NOW + 40 * DAY));
        assert_eq!(step(NOW + 20 * DAY + 1, &second), None);
    }

    #[test]
    fn a_change_of_authorities_is_trusted_by_those_who_know_only_the_bundle_before() {
        let mut now = NOW;
        let mut there = first();
        let (mut bundle, mut leaves, mut most) = (there.bundle(), Vec::new(), 1);
        // Two years, in steps of 40 minutes: an API server knows the bundle of the step before.
        while now < NOW + 2 * 365 * DAY {
            now += 40 * 60;
            if now % DAY < 40 * 60 {
                assert!(is_trusted(&bundle, &there.leaf, now), "{}", now - NOW);
            }
            let Some(next) = step(now, &there) else {
                continue;
            };
            // The new certificate by the old bundle, and the old certificate by the new bundle.
            assert!(is_trusted(&bundle, &next.leaf, now), "{}", now - NOW);
            assert!(is_trusted(&next.bundle(), &there.leaf, now), "{}", now - NOW);
            if next.leaf != there.leaf {
                leaves.push(now);
            }
            most = most.max(next.state.authorities.len());
            (bundle, there) = (next.bundle(), next);
        }
        assert_eq!(most, 2);
        assert!(leaves.len() > 30, "{}", leaves.len());
        assert_ne!(there.state.authorities[0].name, first().state.authorities[0].name);
    }

    #[test]
    fn what_is_expired_or_torn_is_made_anew_and_other_names_are_taken_at_once() {
        let first = first();
        let late = step(NOW + 366 * DAY, &first).unwrap();
        assert_ne!(late.state.authorities, first.state.authorities);
        assert!(is_trusted(&late.bundle(), &late.leaf, NOW + 366 * DAY));
        let mut torn = first.clone();
        torn.state.leaf.authority = "another".to_owned();
        assert_ne!(
            step(NOW, &torn).unwrap().state.authorities,
            first.state.authorities
        );
        let other = vec!["other.apps.svc".to_owned()];
        let renamed = next(NOW, Some(&first), &other, &Lifetimes::default())
            .unwrap()
            .unwrap();
        assert_eq!(renamed.state.leaf.names, other);
        assert_eq!(renamed.state.authorities, first.state.authorities);
    }
}
