//! The extensions around a selection: in the order of the policy's lists, one after the other.

use serde_json::{Map, json};

use super::{
    Answer, Call, Context, DecideContext, DecisionInput, Effects, Envelope, Executed, ExtensionError,
    Extensions, Input, Refusal, Replacement, RequestContext, Rules, ScoredProvider, Selection, Stage, Status,
    Verdict, admit::check_deadline,
};
use super::{
    memory::{Memory, State, Transition},
    select,
};
use crate::policy::{Facts, Item, Mode, OnFail, Pipeline, Processor, Provider, RoutingPolicy, Validator};

/// What flows through the stages of one decision.
pub(super) struct Run<'a, E> {
    pub(super) input: DecisionInput<'a>,
    pub(super) rules: &'a Rules,
    pub(super) at: DecideContext<'a>,
    pub(super) extensions: &'a E,
    pub(super) executed: Vec<Executed>,
    pub(super) message: Envelope<'a>,
    /// The input's, until a pre-processor adds to it.
    pub(super) around: RequestContext<'a>,
}

impl<'a, E: Extensions> Run<'a, E> {
    pub(super) fn new(
        input: DecisionInput<'a>,
        rules: &'a Rules,
        at: DecideContext<'a>,
        extensions: &'a E,
    ) -> Self {
        Self {
            input,
            rules,
            at,
            extensions,
            executed: Vec::new(),
            message: Envelope::new(input.tenant, input.message),
            around: RequestContext::new(input.context),
        }
    }

    /// Everything before the selection.
    pub(super) async fn before(&mut self, pipeline: &Pipeline) -> Result<(), Refusal> {
        for processor in &pipeline.pre {
            self.pre(processor).await?;
        }
        check_deadline(self.around.context(), self.at.on_the_wall((self.at.later)()))?;
        for validator in &pipeline.validators {
            self.validate(validator).await?;
        }
        check_deadline(self.around.context(), self.at.on_the_wall((self.at.later)()))
    }

    /// Weighs the candidates: a factor for each, in their order, where a scorer gave any.
    pub(super) async fn score(
        &mut self,
        pipeline: &Pipeline,
        candidates: &[ScoredProvider<'_>],
    ) -> Result<Option<Vec<f64>>, Refusal> {
        let mut factors: Option<Vec<f64>> = None;
        for processor in &pipeline.scorers {
            let Some(id) = self.is_due(&processor.item) else {
                continue;
            };
            let input = Input::Candidates(&self.message, candidates);
            let answered = self.call(Stage::Scorer, id, &processor.item, input).await;
            let Some(Answer {
                factors: Some(new), ..
            }) = self.settle(Stage::Scorer, id, processor.mode, answered)?
            else {
                continue;
            };
            factors = Some(match factors {
                Some(known) => known.iter().zip(&new).map(|(known, new)| known * new).collect(),
                None => new,
            });
        }
        if factors.is_some() {
            check_deadline(self.around.context(), self.at.on_the_wall((self.at.later)()))?;
        }
        Ok(factors)
    }

    /// Chooses, with the scorers' factors where weights are drawn.
    pub(super) async fn select(
        &mut self,
        policy: &RoutingPolicy,
        pipeline: &Pipeline,
        memory: &Memory,
        transitions: &mut Vec<Transition>,
    ) -> Result<Selection, Refusal> {
        let (input, rules, at) = (self.input, self.rules, self.at);
        if pipeline.scorers.is_empty() {
            return select::select(
                policy,
                input,
                self.around.context(),
                rules,
                memory,
                at,
                transitions,
            );
        }
        // What pre-processors left is not changed any more, and is needed beside the scorers' notes.
        let context = self.around.context().clone();
        let mut selecting = select::begin(policy, input, &context, rules, memory, at, transitions);
        if let Some((provider, how)) = selecting.before_the_draw() {
            return Ok(selecting.selected(provider, how));
        }
        let left_out = selecting.left_out();
        let known = |provider: &Provider| {
            let estimate = memory.estimates.of(input.tenant, provider.id.as_str());
            let breaker = memory.breakers.state(input.tenant, provider.id.as_str());
            (estimate, breaker.unwrap_or(State::Closed))
        };
        let eligible = policy.providers.iter().enumerate();
        let eligible = eligible.filter(|(index, p)| p.weight > 0.0 && left_out.is_eligible(*index));
        let (indices, candidates): (Vec<usize>, Vec<ScoredProvider<'_>>) = eligible
            .map(|(index, provider)| {
                let (estimate, breaker) = known(provider);
                let candidate = ScoredProvider {
                    provider: &provider.id,
                    weight: provider.weight,
                    breaker,
                    latency_ms: estimate.map(|estimate| estimate.latency_ms),
                    error_rate: estimate.map(|estimate| estimate.error_rate),
                    cost: estimate.and_then(|estimate| estimate.cost),
                };
                (index, candidate)
            })
            .unzip();
        let scored = if candidates.is_empty() {
            None
        } else {
            self.score(pipeline, &candidates).await?
        };
        let factors = scored.map(|scored| {
            let mut factors = vec![1.0; policy.providers.len()];
            for (index, factor) in indices.into_iter().zip(scored) {
                if let Some(place) = factors.get_mut(index) {
                    *place = factor;
                }
            }
            factors
        });
        selecting.draw_and_on(left_out, factors.as_deref())
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
            let answered = self
                .call(Stage::Post, id, &processor.item, Input::Decision(&payload))
                .await;
            if let Some(answer) = self.settle(Stage::Post, id, processor.mode, answered)? {
                if let Some(Replacement::Json(next)) = answer.payload {
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
            .is_none_or(|when| when.holds(Facts::of(self.around.context()), self.rules.conditions));
        item.id.as_deref().filter(|_| due)
    }

    async fn pre(&mut self, processor: &Processor) -> Result<(), Refusal> {
        let Some(id) = self.is_due(&processor.item) else {
            return Ok(());
        };
        let input = Input::Message(&self.message);
        let answered = self.call(Stage::Pre, id, &processor.item, input).await;
        let Some(answer) = self.settle(Stage::Pre, id, processor.mode, answered)? else {
            return Ok(());
        };
        if let Some(payload) = answer.payload {
            self.message.take(payload);
        }
        self.around.add(answer.metadata, self.input.tenant);
        Ok(())
    }

    async fn validate(&mut self, validator: &Validator) -> Result<(), Refusal> {
        let Some(id) = validator.item.id.as_deref() else {
            return Ok(());
        };
        if self.is_due(&validator.item).is_none() {
            self.executed(Stage::Validator, id, Status::Skipped, None);
            return Ok(());
        }
        let (error, reason, details): (Option<&'static str>, Box<str>, _) = match self
            .call(
                Stage::Validator,
                id,
                &validator.item,
                Input::Message(&self.message),
            )
            .await
        {
            Ok(Answer {
                verdict: Verdict::Accept,
                ..
            }) => {
                self.executed(Stage::Validator, id, Status::Ok, None);
                return Ok(());
            }
            Ok(Answer {
                verdict: Verdict::Reject { reason, details },
                ..
            }) => (
                None,
                reason.unwrap_or_else(|| "Validator blocked request".into()),
                details,
            ),
            Err(error) => (Some(error.name()), error.name().into(), error.details()),
        };
        let reason = match validator.on_fail {
            OnFail::Warn => {
                self.executed(Stage::Validator, id, Status::Warn, error);
                return Ok(());
            }
            OnFail::Ignore => {
                self.executed(Stage::Validator, id, Status::Ignore, error);
                return Ok(());
            }
            OnFail::Unknown if error.is_none() => "Unknown on_fail mode".into(),
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
                self.executed(stage, id, Status::Ok, None);
                Ok(Some(answer))
            }
            (Err(error), Mode::Optional) => {
                self.executed(stage, id, Status::Error, Some(error.name()));
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

    fn executed(&mut self, stage: Stage, id: &str, status: Status, error: Option<&'static str>) {
        self.executed.push(Executed {
            stage,
            id: id.into(),
            status,
            error,
        });
    }

    async fn call(
        &self,
        stage: Stage,
        id: &str,
        item: &Item,
        input: Input<'_>,
    ) -> Result<Answer, ExtensionError> {
        // A dry run calls no extension; the item is still listed.
        if self.at.effects == Effects::None {
            return Ok(Answer::default());
        }
        let call = Call {
            stage,
            id,
            tenant: self.input.tenant,
            policy_id: self.input.policy_id,
            input,
            around: &self.around,
            config: &item.config,
            timeout_ms: item.timeout_ms,
            retry: item.retry,
            at: self.at,
        };
        self.extensions.call(&call).await
    }
}
