//! The certificates in their Secret, and the webhook's configuration that names their authorities.
//!
//! The first replica writes; the others find that the Secret has another version than they read, and read it again. So replicas
//! never have different authorities, and there is no leader that could be lost.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    api_server::{ApiServer, CallError},
    authority::{Material, next},
    self_managed::SelfManaged,
};
use crate::{
    injector::{metrics::InjectorMetrics, probes::Readiness},
    listener::{TlsSettings, tls_settings},
};

/// How often a look is repeated at once because another replica was faster.
const TRIES: usize = 5;

/// Keeps the certificates current.
#[derive(Debug)]
pub(crate) struct Rotation {
    config: SelfManaged,
    api: ApiServer,
    pub(super) settings: TlsSettings,
    metrics: Arc<InjectorMetrics>,
    readiness: Arc<Readiness>,
    /// The certificate that is in use.
    loaded: Mutex<String>,
}

/// What came of a look.
enum Looked {
    Unchanged,
    Changed,
    Conflict,
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("a certificate cannot be used: {0}")]
    Use(String),
}

impl Rotation {
    pub(super) fn new(
        config: &SelfManaged,
        settings: TlsSettings,
        metrics: Arc<InjectorMetrics>,
        readiness: Arc<Readiness>,
    ) -> Result<Self, String> {
        readiness.is_untrusted.store(true, Relaxed);
        Ok(Self {
            api: ApiServer::new(&config.api_server, &config.service_account)?,
            config: config.clone(),
            settings,
            metrics,
            readiness,
            loaded: Mutex::default(),
        })
    }

    /// Makes what is due, publishes whom to trust, and uses the certificate.
    pub(super) async fn look(&self) {
        for _ in 0..TRIES {
            let outcome = match self.look_once().await {
                Ok(Looked::Unchanged) => "unchanged",
                Ok(Looked::Changed) => "changed",
                Ok(Looked::Conflict) => {
                    self.metrics.rotations.with_label_values(&["conflict"]).inc();
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "The certificates could not be looked at; those before stay in use.");
                    "failed"
                }
            };
            self.metrics.rotations.with_label_values(&[outcome]).inc();
            return;
        }
    }

    async fn look_once(&self) -> Result<Looked, LookError> {
        let path = format!(
            "/api/v1/namespaces/{}/secrets/{}",
            self.config.namespace, self.config.secret
        );
        let mut secret = self.api.read(&path).await?;
        let there = material(&secret);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let made = next(now, there.as_ref(), &self.config.names, &self.config.lifetimes)?;
        let is_changed = made.is_some();
        let material = match (made, there) {
            (Some(made), _) => {
                secret["data"] = data(&made);
                match self.api.replace(&path, &secret).await {
                    Ok(_) => {}
                    Err(CallError::Conflict) => return Ok(Looked::Conflict),
                    Err(error) => return Err(error.into()),
                }
                tracing::info!(
                    authorities = made.state.authorities.len(),
                    expires = made.state.leaf.expires,
                    "The certificates were made anew."
                );
                made
            }
            (None, Some(there)) => there,
            // Where there is nothing, something is made.
            (None, None) => return Ok(Looked::Conflict),
        };
        let is_published = match self.publish(&material.bundle()).await {
            Ok(is_published) => is_published,
            Err(CallError::Conflict) => return Ok(Looked::Conflict),
            Err(error) => return Err(error.into()),
        };
        self.take(&material)?;
        self.readiness.is_untrusted.store(false, Relaxed);
        if is_changed || is_published {
            return Ok(Looked::Changed);
        }
        Ok(Looked::Unchanged)
    }

    /// Names the authorities in the webhook's configuration, if it does not name them. Whether it did not.
    async fn publish(&self, bundle: &str) -> Result<bool, CallError> {
        let path = format!(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}",
            self.config.webhook_configuration
        );
        let configuration = self.api.read(&path).await?;
        let wanted = STANDARD.encode(bundle);
        let mut patch = vec![json!({
            "op": "test", "path": "/metadata/resourceVersion", "value": configuration["metadata"]["resourceVersion"],
        })];
        for (place, webhook) in configuration["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            if webhook["clientConfig"]["caBundle"] != wanted.as_str() {
                let path = format!("/webhooks/{place}/clientConfig/caBundle");
                patch.push(json!({"op": "add", "path": path, "value": wanted}));
            }
        }
        if patch.len() == 1 {
            return Ok(false);
        }
        self.api.patch(&path, &patch.into()).await?;
        Ok(true)
    }

    /// Uses the certificate for new connections, if it is another one.
    fn take(&self, material: &Material) -> Result<(), LookError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if *loaded == material.leaf {
            return Ok(());
        }
        let settings = tls_settings(material.leaf.as_bytes(), material.leaf_key.as_bytes());
        self.settings.store(Arc::new(settings.map_err(LookError::Use)?));
        loaded.clone_from(&material.leaf);
        let expires = i64::try_from(material.state.leaf.expires).unwrap_or(i64::MAX);
        self.metrics.certificate_expires.set(expires);
        tracing::info!(expires, "The certificate is another from now on.");
        Ok(())
    }
}

/// What is in the Secret; `None` if it is empty or torn.
fn material(secret: &Value) -> Option<Material> {
    let text = |key: &str| {
        let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let material = Material {
        state: serde_json::from_str(&text("state.json")?).ok()?,
        authority_key: text("ca.key")?,
        leaf: text("tls.crt")?,
        leaf_key: text("tls.key")?,
    };
    let is_usable = material.is_whole()
        && tls_settings(material.leaf.as_bytes(), material.leaf_key.as_bytes()).is_ok()
        && rcgen::KeyPair::from_pem(&material.authority_key).is_ok();
    is_usable.then_some(material)
}

fn data(material: &Material) -> Value {
    let state = json!(material.state).to_string();
    let bundle = material.bundle();
    let parts = [
        ("ca.crt", &bundle),
        ("ca.key", &material.authority_key),
        ("tls.crt", &material.leaf),
        ("tls.key", &material.leaf_key),
        ("state.json", &state),
    ];
    let encoded: Map<String, Value> = parts
        .into_iter()
        .map(|(key, text)| (key.to_owned(), STANDARD.encode(text).into()))
        .collect();
    encoded.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_the_secret_is_read_again_and_a_torn_secret_is_none() {
        let names = ["injector.apps.svc".to_owned()];
        let made = next(1_800_000_000, None, &names, &super::super::Lifetimes::default());
        let made = made.unwrap().unwrap();
        let secret = json!({"data": data(&made)});
        assert_eq!(material(&secret), Some(made));
        for key in ["ca.key", "tls.crt", "tls.key", "state.json"] {
            let mut torn = secret.clone();
            torn["data"][key] = STANDARD.encode("-----BEGIN").into();
            assert_eq!(material(&torn), None, "{key}");
            torn["data"].as_object_mut().unwrap().remove(key);
            assert_eq!(material(&torn), None, "{key}");
        }
        assert_eq!(material(&json!({})), None);
    }
}
