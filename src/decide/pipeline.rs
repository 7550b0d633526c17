//! The extensions around a selection: in the order of the policy's lists, one after the other.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{
    Answer, Call, Circumstances, Context, Effects, Executed, ExtensionError, Extensions, Inquiry, Refusal,
    Rules, Selection, Stage, Status, Verdict, admit::check_deadline,
};
use crate::policy::{Facts, Item, Mode, OnFail, Pipeline, Processor, Validator};

/// What flows through the stages of one decision.
pub(super) struct Run<'a, E> {
    pub(super) inquiry: Inquiry<'a>,
    pub(super) rules: &'a Rules,
    pub(super) at: Circumstances<'a>,
    pub(super) extensions: &'a E,
    pub(super) executed: Vec<Executed>,
    pub(super) message: Value,
    /// The inquiry's, until a pre-processor adds to it.
    pub(super) context: Cow<'a, Context>,
}

impl<'a, E: Extensions> Run<'a, E> {
    pub(super) fn new(
        inquiry: Inquiry<'a>,
        rules: &'a Rules,
        at: Circumstances<'a>,
        extensions: &'a E,
    ) -> Self {
        Self {
            inquiry,
            rules,
            at,
            extensions,
            executed: Vec::new(),
            message: inquiry.message.to_json(inquiry.tenant),
            context: Cow::Borrowed(inquiry.context),
        }
    }

    /// Everything before the selection.
    pub(super) async fn before(&mut self, pipeline: &Pipeline) -> Result<(), Refusal> {
        for processor in &pipeline.pre {
            self.pre(processor).await?;
        }
        check_deadline(&self.context, (self.at.later)())?;
        for validator in &pipeline.validators {
            self.validate(validator).await?;
        }
        check_deadline(&self.context, (self.at.later)())
    }

    /// Everything after it: what the post-processors add to the decision's metadata.
    pub(super) async fn after(
        &mut self,
        pipeline: &Pipeline,
        selection: &Selection,
    ) -> Result<Context, Refusal> {
        let mut metadata = Map::new();
        let mut payload = json!({
            "provider_id": selection.provider,
            "reason": selection.how.reason(),
            "priority": selection.how.priority(),
        });
        for processor in &pipeline.post {
            let Some(id) = self.is_due(&processor.item) else {
                continue;
            };
            let answered = self.call(Stage::Post, id, &processor.item, &payload).await;
            if let Some(answer) = self.settle(Stage::Post, id, processor.mode, answered)? {
                if let Some(next) = answer.payload {
                    payload = next;
                }
                metadata.extend(answer.metadata);
            }
        }
        Ok(metadata)
    }

    /// The id of an item that is to be run.
    fn is_due<'i>(&self, item: &'i Item) -> Option<&'i str> {
        let due = item
            .when
            .as_ref()
            .is_none_or(|when| when.holds(Facts::of(&self.context), self.rules.conditions));
        item.id.as_deref().filter(|_| due)
    }

    async fn pre(&mut self, processor: &Processor) -> Result<(), Refusal> {
        let Some(id) = self.is_due(&processor.item) else {
            return Ok(());
        };
        let answered = self.call(Stage::Pre, id, &processor.item, &self.message).await;
        let Some(answer) = self.settle(Stage::Pre, id, processor.mode, answered)? else {
            return Ok(());
        };
        match answer.payload {
            Some(message @ Value::Object(_)) => self.message = message,
            Some(payload @ (Value::String(_) | Value::Array(_))) => self.message["payload"] = payload,
            _ => {}
        }
        if !answer.metadata.is_empty() {
            let context = self.context.to_mut();
            context.extend(answer.metadata);
            // An extension speaks within the tenant it was called for.
            context.insert("tenant_id".into(), self.inquiry.tenant.as_str().into());
        }
        Ok(())
    }

    async fn validate(&mut self, validator: &Validator) -> Result<(), Refusal> {
        let Some(id) = validator.item.id.as_deref() else {
            return Ok(());
        };
        if self.is_due(&validator.item).is_none() {
            self.executed(Stage::Validator, id, Status::Skipped);
            return Ok(());
        }
        let (rejected, reason, details): (bool, Box<str>, _) = match self
            .call(Stage::Validator, id, &validator.item, &self.message)
            .await
        {
            Ok(Answer {
                verdict: Verdict::Accept,
                ..
            }) => {
                self.executed(Stage::Validator, id, Status::Ok);
                return Ok(());
            }
            Ok(Answer {
                verdict: Verdict::Reject { reason, details },
                ..
            }) => (
                true,
                reason.unwrap_or_else(|| "Validator blocked request".into()),
                details,
            ),
            Err(error) => (false, error.name().into(), error.details()),
        };
        let reason = match validator.on_fail {
            OnFail::Warn => {
                self.executed(Stage::Validator, id, Status::Warn);
                return Ok(());
            }
            OnFail::Ignore => {
                self.executed(Stage::Validator, id, Status::Ignore);
                return Ok(());
            }
            OnFail::Unknown if rejected => "Unknown on_fail mode".into(),
            OnFail::Block | OnFail::Unknown => reason,
        };
        Err(Refusal::Blocked {
            id: id.into(),
            reason,
            details,
            executed: std::mem::take(&mut self.executed),
        })
    }

    /// Notes how a processor went; a failure ends the request only where the processor is required.
    fn settle(
        &mut self,
        stage: Stage,
        id: &str,
        mode: Mode,
        answered: Result<Answer, ExtensionError>,
    ) -> Result<Option<Answer>, Refusal> {
        match (answered, mode) {
            (Ok(answer), _) => {
                self.executed(stage, id, Status::Ok);
                Ok(Some(answer))
            }
            (Err(_), Mode::Optional) => {
                self.executed(stage, id, Status::Error);
                Ok(None)
            }
            (Err(error), Mode::Required) => Err(Refusal::ProcessorFailed {
                stage,
                id: id.into(),
                error,
                executed: std::mem::take(&mut self.executed),
            }),
        }
    }

    fn executed(&mut self, stage: Stage, id: &str, status: Status) {
        self.executed.push(Executed {
            stage,
            id: id.into(),
            status,
        });
    }

    async fn call(
        &self,
        stage: Stage,
        id: &str,
        item: &Item,
        payload: &Value,
    ) -> Result<Answer, ExtensionError> {
        // A dry run calls nobody; the extension is still listed.
        if self.at.effects == Effects::None {
            return Ok(Answer::default());
        }
        let call = Call {
            stage,
            id,
            tenant: self.inquiry.tenant,
            policy_id: self.inquiry.policy_id,
            payload,
            metadata: &self.context,
            config: &item.config,
            timeout_ms: item.timeout_ms,
            retry: item.retry,
        };
        self.extensions.call(&call).await
    }
}
