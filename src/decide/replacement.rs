//! What extensions put in place of what they were given.

use serde_json::{Map, Value};

/// What takes the place of a message, or of the input of the next post-processor.
#[derive(Debug, Clone, PartialEq)]
pub enum Replacement {
    /// As the platform has it: what [`Envelope`](super::Envelope) takes, or the input of the next post-processor.
    Json(Value),
    /// A message whose payload stays text, however many values it holds.
    Message(Box<MessageText>),
}

/// The parts of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageText {
    /// Its id; empty: unchanged.
    pub message_id: Box<str>,
    /// Its type.
    pub message_type: Box<str>,
    /// Its payload: JSON text.
    pub payload: Box<str>,
    /// Its other fields.
    pub metadata: Map<String, Value>,
}

impl MessageText {
    /// The platform's message object. A payload that is nested too deeply for a tree stays text.
    pub(super) fn to_json(&self) -> Value {
        let mut message = self.metadata.clone();
        let payload =
            serde_json::from_str(&self.payload).unwrap_or_else(|_deep| Value::from(self.payload.as_ref()));
        message.insert("payload".into(), payload);
        message.insert("message_type".into(), self.message_type.as_ref().into());
        if !self.message_id.is_empty() {
            message.insert("message_id".into(), self.message_id.as_ref().into());
        }
        Value::Object(message)
    }
}
