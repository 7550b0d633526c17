//! The request path, parsed once and exactly.
//!
//! What is looked up, what is forwarded and what is recorded must be the same thing, so there is one parser and
//! one canonical form. A path that another server might read differently — empty segments, dot segments, encoded
//! separators — is refused instead of repaired, wherever it leads.

use std::borrow::Cow;

use http::Uri;

use crate::policy::{InvalidId, PolicyId, TenantId, check_id};

/// An id as it stood in a path: decoded and checked, borrowed unless it was percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathId<'a>(Cow<'a, str>);

impl PathId<'_> {
    /// The decoded id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a tenant's.
    pub fn tenant(&self) -> Result<TenantId, InvalidId> {
        TenantId::parse(&self.0)
    }

    /// The id as a policy's.
    pub fn policy(&self) -> Result<PolicyId, InvalidId> {
        PolicyId::parse(&self.0)
    }
}

/// Names of operations that stand where an id could; they are refused as ids.
const DRY_RUN: &str = "dry-run";
const COMPLEXITY: &str = "complexity";

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/api/v1/policies/{tenant}/{policy}`
    Policy {
        /// The tenant.
        tenant: PathId<'a>,
        /// The policy of the tenant.
        policy: PathId<'a>,
    },
    /// `/api/v1/policies/{tenant}`
    Tenant(PathId<'a>),
    /// `/health`
    Health,
    /// `/api/v1/decide`
    Decide,
    /// `/api/v1/results`
    Results,
    /// `/api/v1/policies/dry-run`
    DryRun,
    /// `/api/v1/policies/{tenant}/{policy}/complexity`
    Complexity {
        /// The tenant.
        tenant: PathId<'a>,
        /// The policy of the tenant.
        policy: PathId<'a>,
    },
    /// A sound path that means nothing to the policy store's part of the API.
    Other,
}

/// Why a request target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// An absolute URI, `*`, or no leading `/`.
    #[error("the request target must be a path that begins with `/`")]
    NotOriginForm,
    /// A doubled or final `/`.
    #[error("the path has an empty segment: remove the doubled or final `/`")]
    EmptySegment,
    /// A `.` or `..` segment, encoded or not.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// `;`, `\` or a control character.
    #[error("the path has a character that is not allowed in it: `;`, `\\`, or a control character")]
    Character,
    /// A malformed or doubled percent-encoding, or an encoded separator.
    #[error("the path has a broken or doubled percent-encoding, or one that hides a separator")]
    Encoding,
    /// The tenant id is malformed.
    #[error("the tenant id {0}")]
    Tenant(InvalidId),
    /// The policy id is malformed.
    #[error("the policy id {0}")]
    Policy(InvalidId),
}

impl Target<'_> {
    /// The path of [`Policy`](Self::Policy), with names in braces in place of ids.
    pub const POLICY: &'static str = "/api/v1/policies/{tenant}/{policy}";
    /// The path of [`Tenant`](Self::Tenant), with a name in braces in place of the id.
    pub const TENANT: &'static str = "/api/v1/policies/{tenant}";
    /// The path of [`Health`](Self::Health).
    pub const HEALTH: &'static str = "/health";
    /// The path of [`Decide`](Self::Decide).
    pub const DECIDE: &'static str = "/api/v1/decide";
    /// The path of [`Results`](Self::Results).
    pub const RESULTS: &'static str = "/api/v1/results";
    /// The path of [`DryRun`](Self::DryRun).
    pub const DRY_RUN: &'static str = "/api/v1/policies/dry-run";
    /// The path of [`Complexity`](Self::Complexity), with names in braces in place of ids.
    pub const COMPLEXITY: &'static str = "/api/v1/policies/{tenant}/{policy}/complexity";

    /// The path of this target, with names in braces in place of ids; `None` for [`Other`](Self::Other).
    pub const fn template(&self) -> Option<&'static str> {
        match self {
            Self::Policy { .. } => Some(Self::POLICY),
            Self::Tenant(_) => Some(Self::TENANT),
            Self::Health => Some(Self::HEALTH),
            Self::Decide => Some(Self::DECIDE),
            Self::Results => Some(Self::RESULTS),
            Self::DryRun => Some(Self::DRY_RUN),
            Self::Complexity { .. } => Some(Self::COMPLEXITY),
            Self::Other => None,
        }
    }
}

impl<'a> Target<'a> {
    /// Parses the target of a request. `*` and absolute targets are for proxies and refused.
    pub fn parse(uri: &'a Uri) -> Result<Self, InvalidPath> {
        if uri.authority().is_some() || uri.scheme().is_some() {
            return Err(InvalidPath::NotOriginForm);
        }
        Self::parse_path(uri.path())
    }

    fn parse_path(path: &'a str) -> Result<Self, InvalidPath> {
        let rest = path.strip_prefix('/').ok_or(InvalidPath::NotOriginForm)?;
        if let Some(ids) = rest.strip_prefix("api/v1/policies/") {
            return Self::parse_ids(ids);
        }
        match rest {
            "health" => return Ok(Self::Health),
            "api/v1/decide" => return Ok(Self::Decide),
            "api/v1/results" => return Ok(Self::Results),
            _ => {}
        }
        if rest.is_empty() {
            return Ok(Self::Other);
        }
        let mut segments = Vec::with_capacity(8);
        for segment in rest.split('/') {
            segments.push(decode(segment)?);
        }
        // The same names written with escapes are the same resource.
        let names: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match names.as_slice() {
            ["api", "v1", "decide"] => return Ok(Self::Decide),
            ["api", "v1", "results"] => return Ok(Self::Results),
            ["api", "v1", "policies", DRY_RUN] => return Ok(Self::DryRun),
            _ => {}
        }
        match segments.as_slice() {
            [api, v1, policies, tenant, policy, complexity]
                if [api, v1, policies, complexity] == ["api", "v1", "policies", COMPLEXITY] =>
            {
                Ok(Self::Complexity {
                    tenant: tenant_id(tenant.clone())?,
                    policy: policy_id(policy.clone())?,
                })
            }
            [api, v1, policies, tenant] if [api, v1, policies] == ["api", "v1", "policies"] => {
                Ok(Self::Tenant(tenant_id(tenant.clone())?))
            }
            [api, v1, policies, tenant, policy] if [api, v1, policies] == ["api", "v1", "policies"] => {
                Ok(Self::Policy {
                    tenant: tenant_id(tenant.clone())?,
                    policy: policy_id(policy.clone())?,
                })
            }
            [health] if health == "health" => Ok(Self::Health),
            _ => Ok(Self::Other),
        }
    }

    /// The hot path: what follows `/api/v1/policies/`, without a copy where nothing is encoded.
    fn parse_ids(ids: &'a str) -> Result<Self, InvalidPath> {
        // What is an id as it stands needs no decoding, and is nothing else.
        if let Some((tenant, policy)) = ids.split_once('/')
            && check_id(tenant).is_ok()
            && check_id(policy).is_ok()
        {
            return Ok(Self::Policy {
                tenant: PathId(tenant.into()),
                policy: PathId(policy.into()),
            });
        }
        let mut segments = ids.split('/');
        let tenant = decode(segments.next().unwrap_or_default())?;
        let Some(policy) = segments.next() else {
            if tenant == DRY_RUN {
                return Ok(Self::DryRun);
            }
            return Ok(Self::Tenant(tenant_id(tenant)?));
        };
        let policy = decode(policy)?;
        let mut rest = Vec::new();
        for segment in segments {
            rest.push(decode(segment)?);
        }
        match rest.as_slice() {
            [] => {}
            [complexity] if complexity == COMPLEXITY => {
                return Ok(Self::Complexity {
                    tenant: tenant_id(tenant)?,
                    policy: policy_id(policy)?,
                });
            }
            _ => return Ok(Self::Other),
        }
        Ok(Self::Policy {
            tenant: tenant_id(tenant)?,
            policy: policy_id(policy)?,
        })
    }
}

fn tenant_id(text: Cow<'_, str>) -> Result<PathId<'_>, InvalidPath> {
    check_id(&text).map_err(InvalidPath::Tenant)?;
    Ok(PathId(text))
}

fn policy_id(text: Cow<'_, str>) -> Result<PathId<'_>, InvalidPath> {
    check_id(&text).map_err(InvalidPath::Policy)?;
    Ok(PathId(text))
}

/// Decodes one segment, once. What it decodes to must not mean anything in a path.
fn decode(segment: &str) -> Result<Cow<'_, str>, InvalidPath> {
    if segment.is_empty() {
        return Err(InvalidPath::EmptySegment);
    }
    if segment
        .bytes()
        .any(|b| b == b';' || b == b'\\' || b.is_ascii_control())
    {
        return Err(InvalidPath::Character);
    }
    let decoded = if segment.contains('%') {
        Cow::Owned(unescape(segment)?)
    } else {
        Cow::Borrowed(segment)
    };
    if decoded == "." || decoded == ".." {
        return Err(InvalidPath::DotSegment);
    }
    Ok(decoded)
}

fn unescape(segment: &str) -> Result<String, InvalidPath> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|b| char::from(b).to_digit(16))
                .ok_or(InvalidPath::Encoding)
        };
        let byte = digit()? * 16 + digit()?;
        let byte = u8::try_from(byte).map_err(|_impossible| InvalidPath::Encoding)?;
        if byte.is_ascii_control() || matches!(byte, b'%' | b'/' | b'\\' | b';' | b'?' | b'#') {
            return Err(InvalidPath::Encoding);
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_not_utf8| InvalidPath::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<String, InvalidPath> {
        Target::parse_path(path).map(|target| match target {
            Target::Policy { tenant, policy } => format!("{}|{}", tenant.as_str(), policy.as_str()),
            Target::Tenant(tenant) => tenant.as_str().to_owned(),
            Target::Health => "health".into(),
            Target::Decide => "decide".into(),
            Target::Results => "results".into(),
            Target::DryRun => "dry-run".into(),
            Target::Complexity { tenant, policy } => {
                format!("complexity of {}|{}", tenant.as_str(), policy.as_str())
            }
            Target::Other => "other".into(),
        })
    }

    #[test]
    fn each_path_has_one_meaning() {
        for (path, meaning) in [
            ("/api/v1/policies/acme/chat", "acme|chat"),
            ("/api/v1/policies/%61cme/ch%61t", "acme|chat"),
            ("/%61pi/v1/policies/acme/chat", "acme|chat"),
            ("/api/v1/policies/acme", "acme"),
            ("/health", "health"),
            ("/healt%68", "health"),
            ("/api/v1/policies/t/health", "t|health"),
            ("/api/v1/policies/t/healthz", "t|healthz"),
            ("/api/v1/policies/t/p/complexity", "complexity of t|p"),
            ("/%61pi/v1/policies/t/p/comple%78ity", "complexity of t|p"),
            ("/api/v1/policies/t/p/complexity/x", "other"),
            ("/api/v1/policies/t/p/history", "other"),
            ("/api/v1/policies/dry-run", "dry-run"),
            ("/%61pi/v1/policies/dry%2Drun", "dry-run"),
            ("/api/v1/decide", "decide"),
            ("/api/v1/d%65cide", "decide"),
            ("/api/v1/results", "results"),
            ("/api/v1/decide/x", "other"),
            ("/api/v1/policies", "other"),
            ("/api/v1/snapshot", "other"),
            ("/API/v1/policies/a/b", "other"),
            ("/", "other"),
        ] {
            assert_eq!(parse(path).as_deref(), Ok(meaning), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        use InvalidPath::*;
        for (path, why) in [
            ("", NotOriginForm),
            ("*", NotOriginForm),
            ("//api/v1/policies/t/p", EmptySegment),
            ("/api//v1/policies/t/p", EmptySegment),
            ("/api/v1/policies//p", EmptySegment),
            ("/api/v1/policies/t/", EmptySegment),
            ("/api/v1/policies/t/p/", EmptySegment),
            ("/health/", EmptySegment),
            ("/api/v1/policies/t%2F..%2Fother", Encoding),
            ("/api/v1/policies/t%2fp", Encoding),
            ("/api/v1/policies/../p", DotSegment),
            ("/api/v1/x/../policies/t/p", DotSegment),
            ("/api/v1/policies/%2e%2e/p", DotSegment),
            ("/api/v1/policies/.%2E/p", DotSegment),
            ("/api/v1/policies/t/%252e", Encoding),
            ("/api/v1/policies/t/p;x", Character),
            ("/api/v1/policies/t/p\\x", Character),
            ("/api/v1/policies/t/p%5cx", Encoding),
            ("/api/v1/policies/t/%23", Encoding),
            ("/api/v1/policies/t/%3F", Encoding),
            ("/api/v1/policies/t/%", Encoding),
            ("/api/v1/policies/t/%4", Encoding),
            ("/api/v1/policies/t/%zz", Encoding),
            ("/api/v1/policies/t/%+1", Encoding),
            ("/api/v1/policies/t/%00", Encoding),
            ("/api/v1/policies/t/a%0ab", Encoding),
            ("/api/v1/policies/t/%ff", Encoding),
            ("/api/v1/policies/t/%C3%A9", Policy(InvalidId::Character)),
            ("/api/v1/policies/t%20u/p", Tenant(InvalidId::Character)),
            ("/api/v1/policies/t/p=1", Policy(InvalidId::Character)),
            ("/api/v1/policies/dry-run/p", Tenant(InvalidId::Reserved)),
            ("/api/v1/policies/t/complexity", Policy(InvalidId::Reserved)),
            ("/api/v1/policies/t/dry-run", Policy(InvalidId::Reserved)),
            ("/api/v1/policies/t/complexit%79", Policy(InvalidId::Reserved)),
        ] {
            assert_eq!(parse(path), Err(why), "{path}");
        }
        let long = format!("/api/v1/policies/t/{}", "p".repeat(256));
        assert_eq!(parse(&long), Err(Policy(InvalidId::TooLong)));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_parses_is_canonical(path in "(/|%|[a-z.%0-9A-F;]|\\PC){0,40}") {
            if let Ok(Target::Policy { tenant, policy }) = Target::parse_path(&path) {
                let canonical = format!("/api/v1/policies/{}/{}", tenant.as_str(), policy.as_str());
                let again = Target::parse_path(&canonical).unwrap();
                proptest::prop_assert_eq!(again, Target::Policy { tenant, policy });
            }
        }
    }
}
