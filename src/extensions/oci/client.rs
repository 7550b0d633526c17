//! One registry, spoken to as the distribution specification says.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION},
};
use http_body_util::Full;

use super::{
    access::Access,
    authorization::{Challenge, bearer, token_url},
    manifest::{Descriptor, ImageIndex, media},
    reference::Repository,
};
use crate::extensions::{
    digest::ModuleDigest,
    web::{Web, WebAnswer, WebError},
};

/// The largest manifest, as registries have it.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The largest other answer of a registry.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Redirections that are followed to where a registry has its content.
const MAX_REDIRECTIONS: usize = 3;

/// A client of registries. What one of them gave it to show is kept as long as it lives.
#[derive(Debug)]
pub struct RegistryClient<'a> {
    web: &'a Web,
    access: &'a Access,
    shown: Mutex<HashMap<(String, &'static str), HeaderValue>>,
}

/// Registries, for commands.
#[derive(Debug)]
pub struct Registries {
    web: Web,
    access: Access,
}

impl Registries {
    /// To be spoken to like this.
    pub fn new(access: Access) -> Self {
        Self {
            web: Web::default(),
            access,
        }
    }

    /// A client of them.
    pub fn client(&self) -> RegistryClient<'_> {
        RegistryClient::new(&self.web, &self.access)
    }
}

/// What became of a manifest that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The registry lists it with what it is about.
    pub is_listed: bool,
}

/// One request.
struct Ask<'a> {
    method: Method,
    repository: &'a Repository,
    uri: String,
    header: Option<(http::HeaderName, &'a str)>,
    body: Bytes,
    max_bytes: u64,
}

impl Ask<'_> {
    fn build(&self, shown: Option<HeaderValue>) -> Result<Request<Full<Bytes>>, WebError> {
        let mut request = Request::builder().method(&self.method).uri(&self.uri);
        if let Some((name, value)) = &self.header {
            request = request.header(name, *value);
        }
        if let Some(shown) = shown {
            request = request.header(AUTHORIZATION, shown);
        }
        request
            .body(Full::new(self.body.clone()))
            .map_err(|error| WebError::lasting(format!("not a URL: {error}")))
    }

    /// What must be permitted for it.
    fn actions(&self) -> &'static str {
        if self.method == Method::GET || self.method == Method::HEAD {
            "pull"
        } else {
            "pull,push"
        }
    }
}

impl<'a> RegistryClient<'a> {
    /// A client that has asked for nothing yet.
    pub(in crate::extensions) fn new(web: &'a Web, access: &'a Access) -> Self {
        Self {
            web,
            access,
            shown: Mutex::default(),
        }
    }

    /// A manifest; `None`: there is none of this name.
    ///
    /// # Errors
    /// When the registry does not answer as it should.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<Option<Bytes>, WebError> {
        let accept = format!("{}, {}", media::MANIFEST, media::INDEX);
        let answer = self
            .send(&Ask {
                method: Method::GET,
                repository,
                uri: self.url(repository, &format!("manifests/{reference}"))?,
                header: Some((ACCEPT, &accept)),
                body: Bytes::new(),
                max_bytes: MAX_MANIFEST_BYTES,
            })
            .await?;
        match answer.status {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            _ => return Err(refused(repository, &answer)),
        }
        if let Some(wanted) = reference.strip_prefix("sha256:").and_then(ModuleDigest::parse) {
            must_be(&answer.body, &wanted, "manifest")?;
        }
        Ok(Some(answer.body))
    }

    /// Content, of at most so many bytes.
    ///
    /// # Errors
    /// When it is not there, is larger, or is another.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &ModuleDigest,
        max_bytes: u64,
    ) -> Result<Bytes, WebError> {
        let mut ask = Ask {
            method: Method::GET,
            repository,
            uri: self.url(repository, &format!("blobs/sha256:{digest}"))?,
            header: None,
            body: Bytes::new(),
            max_bytes,
        };
        let mut answer = self.send(&ask).await?;
        for _ in 0..MAX_REDIRECTIONS {
            if !answer.status.is_redirection() {
                break;
            }
            // Registries have their content elsewhere. It is named by its digest, so it does not matter where; which hosts
            // are asked does, and none of them is shown what the registry wants to see.
            let to = self.location(&ask.uri, &answer)?;
            let is_same = to.authority() == ask.uri.parse::<Uri>().ok().as_ref().and_then(Uri::authority);
            ask.uri = to.to_string();
            answer = if is_same {
                self.send(&ask).await?
            } else {
                self.web.send(ask.build(None)?, max_bytes).await?
            };
        }
        if answer.status != StatusCode::OK {
            return Err(refused(repository, &answer));
        }
        must_be(&answer.body, digest, "content")?;
        Ok(answer.body)
    }

    /// The manifests that are about this one, as far as the registry, or the tag that stands in for that, lists them.
    ///
    /// # Errors
    /// When the registry does not answer as it should.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &ModuleDigest,
    ) -> Result<Vec<Descriptor>, WebError> {
        let answer = self
            .send(&Ask {
                method: Method::GET,
                repository,
                uri: self.url(repository, &format!("referrers/sha256:{digest}"))?,
                header: Some((ACCEPT, media::INDEX)),
                body: Bytes::new(),
                max_bytes: MAX_MANIFEST_BYTES,
            })
            .await?;
        let is_index = answer
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|known| known.as_bytes().starts_with(media::INDEX.as_bytes()));
        let text = match answer.status {
            StatusCode::OK if is_index => Some(answer.body),
            // A registry without the list.
            StatusCode::OK
            | StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED => self.manifest(repository, &referrers_tag(digest)).await?,
            _ => return Err(refused(repository, &answer)),
        };
        let Some(text) = text else { return Ok(Vec::new()) };
        let index: ImageIndex = serde_json::from_slice(&text)
            .map_err(|error| WebError::away(format!("the list of referrers cannot be read: {error}")))?;
        Ok(index.manifests)
    }

    /// Puts content into a repository, unless it is there.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn push_blob(&self, repository: &Repository, content: &Bytes) -> Result<(), WebError> {
        let digest = ModuleDigest::of(content);
        let ask = |method: Method, uri: String| Ask {
            method,
            repository,
            uri,
            header: None,
            body: Bytes::new(),
            max_bytes: MAX_ANSWER_BYTES,
        };
        let at = self.url(repository, &format!("blobs/sha256:{digest}"))?;
        if self.send(&ask(Method::HEAD, at)).await?.status == StatusCode::OK {
            return Ok(());
        }
        let begin = ask(Method::POST, self.url(repository, "blobs/uploads/")?);
        let answer = self.send(&begin).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(refused(repository, &answer));
        }
        let to = self.location(&begin.uri, &answer)?.to_string();
        let separator = if to.contains('?') { '&' } else { '?' };
        let put = Ask {
            header: Some((CONTENT_TYPE, "application/octet-stream")),
            body: content.clone(),
            ..ask(Method::PUT, format!("{to}{separator}digest=sha256%3A{digest}"))
        };
        let answer = self.send(&put).await?;
        if answer.status != StatusCode::CREATED {
            return Err(refused(repository, &answer));
        }
        Ok(())
    }

    /// Puts a manifest into a repository, under a tag or its digest.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        reference: &str,
        media_type: &str,
        manifest: Bytes,
    ) -> Result<Pushed, WebError> {
        let answer = self
            .send(&Ask {
                method: Method::PUT,
                repository,
                uri: self.url(repository, &format!("manifests/{reference}"))?,
                header: Some((CONTENT_TYPE, media_type)),
                body: manifest,
                max_bytes: MAX_ANSWER_BYTES,
            })
            .await?;
        if answer.status != StatusCode::CREATED {
            return Err(refused(repository, &answer));
        }
        Ok(Pushed {
            is_listed: answer.headers.contains_key("oci-subject"),
        })
    }

    fn url(&self, repository: &Repository, path: &str) -> Result<String, WebError> {
        let base = self.access.base(repository.host())?;
        Ok(format!("{base}/v2/{}/{path}", repository.name()))
    }

    /// Where an answer leads, if that may be asked.
    fn location(&self, from: &str, answer: &WebAnswer) -> Result<Uri, WebError> {
        let nowhere = || WebError::away("the registry leads nowhere");
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let mut location = location.ok_or_else(nowhere)?.to_owned();
        if location.starts_with('/') && !location.starts_with("//") {
            let from: Uri = from.parse().map_err(|_invalid| nowhere())?;
            let authority = from.authority().ok_or_else(nowhere)?;
            let scheme = from.scheme_str().unwrap_or("https");
            location = format!("{scheme}://{authority}{location}");
        }
        let uri: Uri = location.parse().map_err(|_invalid| nowhere())?;
        self.access.may_ask(&uri)?;
        Ok(uri)
    }

    /// Sends a request, and once more with what the registry wants to see.
    async fn send(&self, ask: &Ask<'_>) -> Result<WebAnswer, WebError> {
        let scope = (ask.repository.to_string(), ask.actions());
        let shown = self.shown().get(&scope).cloned();
        let answer = self.web.send(ask.build(shown)?, ask.max_bytes).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::of(&answer.headers) else {
            return Ok(answer);
        };
        let Some(to_show) = self.answer_to(&challenge, ask).await? else {
            return Ok(answer);
        };
        let again = self
            .web
            .send(ask.build(Some(to_show.clone()))?, ask.max_bytes)
            .await?;
        if again.status != StatusCode::UNAUTHORIZED {
            self.shown().insert(scope, to_show);
        }
        Ok(again)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, HashMap<(String, &'static str), HeaderValue>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to show; `None`: there are no credentials.
    async fn answer_to(&self, challenge: &Challenge, ask: &Ask<'_>) -> Result<Option<HeaderValue>, WebError> {
        let credentials = self.access.credentials()?;
        let host = ask.repository.host();
        let basic = match credentials.for_host(host).map(super::credentials::Login::basic) {
            None => None,
            Some(Ok(header)) => Some(header),
            Some(Err(why)) => return Err(WebError::away(format!("{host}: {why}"))),
        };
        let (realm, service) = match challenge {
            Challenge::Basic => return Ok(basic),
            Challenge::Bearer { realm, service } => (realm, service.as_deref()),
        };
        let scope = format!("repository:{}:{}", ask.repository.name(), ask.actions());
        let url: Uri = token_url(realm, service, &scope)
            .parse()
            .map_err(|_invalid| WebError::away("the registry names no URL to get a token from"))?;
        self.access.may_ask(&url)?;
        let mut request = Request::get(url);
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let request = request
            .body(Full::default())
            .map_err(|error| WebError::away(error.to_string()))?;
        let answer = self.web.send(request, MAX_ANSWER_BYTES).await?;
        if answer.status != StatusCode::OK {
            return Err(WebError::away(format!(
                "{host} gives no token: its server answers {}",
                answer.status
            )));
        }
        let token = bearer(&answer.body);
        token
            .map(Some)
            .ok_or_else(|| WebError::away(format!("{host} gives no token: the answer holds none")))
    }
}

/// The tag that lists what is about a manifest, in registries that have no list of their own.
pub fn referrers_tag(digest: &ModuleDigest) -> String {
    format!("sha256-{digest}")
}

fn must_be(bytes: &[u8], wanted: &ModuleDigest, what: &str) -> Result<(), WebError> {
    let digest = ModuleDigest::of(bytes);
    if digest == *wanted {
        return Ok(());
    }
    Err(WebError::wrong(format!(
        "the SHA-256 of the {what} that the registry gives is {digest}, not {wanted}"
    )))
}

/// What a registry answered, in words.
fn refused(repository: &Repository, answer: &WebAnswer) -> WebError {
    let host = repository.host();
    let reason = match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(
            "{host} answers {}: it has no credentials for {} that it takes",
            answer.status,
            repository.name()
        ),
        status if status.is_redirection() => format!("{host} answers {status}: it leads on and on"),
        status => format!("{host} answers {status}{}", code(&answer.body)),
    };
    WebError::away(reason)
}

/// The code of an error as registries have it, if it is one.
fn code(body: &[u8]) -> String {
    let read = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let code = read["errors"][0]["code"].as_str().unwrap_or_default();
    let is_code = (1..=64).contains(&code.len()) && code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
    if is_code {
        format!(" ({code})")
    } else {
        String::new()
    }
}
