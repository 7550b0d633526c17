//! The message and the context on their way through the extensions. Each is kept unchanged until an extension changes
//! it, and serialised at most once.

use std::{borrow::Cow, sync::OnceLock};

use serde_json::{Map, Value, json};

use super::{Context, Message, Replacement};
use crate::policy::{TenantId, exact};

/// The message that is routed.
#[derive(Debug)]
pub struct Envelope<'a> {
    tenant: &'a TenantId,
    original: Message<'a>,
    /// The message with which a pre-processor replaced it.
    replaced: Option<Replacement>,
    texts: OnceLock<Texts>,
}

#[derive(Debug)]
struct Texts {
    payload: Option<Box<str>>,
    metadata: Box<str>,
}

/// Keys of the platform's message that are neither id, type nor payload.
const METADATA: [&str; 5] = ["trace_id", "payload_ref", "run_id", "flow_id", "step_id"];

impl<'a> Envelope<'a> {
    /// The message as the request has it; nothing is serialised yet.
    pub fn new(tenant: &'a TenantId, message: Message<'a>) -> Self {
        Self {
            tenant,
            original: message,
            replaced: None,
            texts: OnceLock::new(),
        }
    }

    fn text(&self, key: &str, original: Option<&'a str>) -> &str {
        match &self.replaced {
            Some(Replacement::Json(message)) => message.get(key).and_then(Value::as_str).unwrap_or_default(),
            Some(Replacement::Message(message)) => match key {
                "message_id" => &message.message_id,
                _ => &message.message_type,
            },
            None => original.unwrap_or_default(),
        }
    }

    /// Empty if there is none.
    pub fn message_id(&self) -> &str {
        self.text("message_id", self.original.message_id)
    }

    /// `unknown` if the request has none.
    pub fn message_type(&self) -> &str {
        match self.text("message_type", self.original.message_type) {
            "" => "unknown",
            message_type => message_type,
        }
    }

    /// The payload as JSON text.
    pub fn payload(&self) -> &str {
        if let Some(Replacement::Message(message)) = &self.replaced {
            return &message.payload;
        }
        match (&self.texts().payload, self.original.payload) {
            (Some(payload), _) => payload,
            (None, Some(payload)) => payload.get(),
            (None, None) => "null",
        }
    }

    /// The rest of the envelope as JSON text: an object.
    pub fn metadata(&self) -> &str {
        &self.texts().metadata
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| match &self.replaced {
            Some(Replacement::Json(message)) => Texts {
                payload: Some(message.get("payload").unwrap_or(&Value::Null).to_string().into()),
                metadata: rest(|key| message.get(key)),
            },
            Some(Replacement::Message(message)) => Texts {
                payload: None,
                metadata: rest(|key| message.metadata.get(key)),
            },
            None => {
                let original = &self.original;
                let values = [
                    original.trace_id,
                    original.payload_ref,
                    original.run_id,
                    original.flow_id,
                    original.step_id,
                ];
                let known = METADATA.into_iter().zip(values);
                let rest: Map<String, Value> = known
                    .filter_map(|(key, value)| Some((key.to_owned(), value?.into())))
                    .collect();
                let metadata = if rest.is_empty() {
                    "{}".into()
                } else {
                    Value::Object(rest).to_string().into()
                };
                Texts {
                    payload: None,
                    metadata,
                }
            }
        })
    }

    /// The platform's message object.
    pub fn to_value(&self) -> Cow<'_, Value> {
        match &self.replaced {
            Some(Replacement::Json(message)) => Cow::Borrowed(message),
            Some(Replacement::Message(message)) => Cow::Owned(message.to_json()),
            None => Cow::Owned(self.original.to_json(self.tenant)),
        }
    }

    /// Applies what a pre-processor returned: an object replaces the message, a text or a list its payload.
    pub(super) fn take(&mut self, new: Replacement) {
        let replaced = match new {
            Replacement::Message(mut message) => {
                if message.message_id.is_empty() {
                    message.message_id = self.message_id().into();
                }
                Replacement::Message(message)
            }
            Replacement::Json(Value::Object(message)) => Replacement::Json(Value::Object(message)),
            Replacement::Json(payload @ (Value::String(_) | Value::Array(_))) => {
                let mut message = self.to_value().into_owned();
                message["payload"] = payload;
                Replacement::Json(message)
            }
            Replacement::Json(_) => return,
        };
        self.replaced = Some(replaced);
        self.texts = OnceLock::new();
    }
}

/// The fields of a message that are neither id, type nor payload, as JSON text.
fn rest<'a>(of: impl Fn(&str) -> Option<&'a Value>) -> Box<str> {
    let rest: Map<String, Value> = METADATA
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), of(key)?.clone())))
        .collect();
    Value::Object(rest).to_string().into()
}

/// The context of the request, with what pre-processors added.
#[derive(Debug)]
pub struct RequestContext<'a> {
    context: Cow<'a, Context>,
    text: OnceLock<Box<str>>,
}

impl<'a> RequestContext<'a> {
    /// The context as the request has it; it is copied only if a pre-processor adds to it.
    pub fn new(context: &'a Context) -> Self {
        Self {
            context: Cow::Borrowed(context),
            text: OnceLock::new(),
        }
    }

    /// The context as it is now.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// As JSON text.
    pub fn text(&self) -> &str {
        let write = || exact::written(serde_json::to_string(&*self.context).unwrap_or_else(|_| "{}".into()));
        self.text.get_or_init(|| write().into())
    }

    /// Adds keys, which override existing ones. An extension cannot change the tenant for which it was called.
    pub(super) fn add(&mut self, keys: Context, tenant: &TenantId) {
        if keys.is_empty() {
            return;
        }
        let context = self.context.to_mut();
        context.extend(keys);
        context.insert("tenant_id".into(), json!(tenant));
        self.text = OnceLock::new();
    }
}
