//! What every part of the sandbox knows: the kinds of extensions, what a call is given, what bounds it, and what it
//! returns.

use std::time::Duration;

use super::json::MAX_VALUES;
use super::wire::{
    CandidateRecord, DecisionRecord, LogLevel, MessageRecord, NewMessage, PreOutput, WireScore, WireVerdict,
};
use crate::decide::{Stage, TIMEOUT_MS};

/// What an extension is for. Each kind has a world of its own in the WIT package.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ExtensionKind")]
pub enum Kind {
    /// A pre-processor.
    Pre,
    /// Accepts or rejects a message.
    Validator,
    /// Weighs the candidates.
    Scorer,
    /// A post-processor.
    Post,
}

impl Kind {
    /// All kinds, in the order in which a decision calls them.
    pub const ALL: [Self; 4] = [Self::Pre, Self::Validator, Self::Scorer, Self::Post];

    /// As registry records, metrics and explanations name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Validator => "validator",
            Self::Scorer => "scorer",
            Self::Post => "post",
        }
    }

    /// The name of its world.
    pub const fn world(self) -> &'static str {
        match self {
            Self::Pre => "pre-processor",
            Self::Validator => "validator",
            Self::Scorer => "scorer",
            Self::Post => "post-processor",
        }
    }

    /// The kind that is called in a stage of a decision.
    pub const fn of(stage: Stage) -> Self {
        match stage {
            Stage::Pre => Self::Pre,
            Stage::Validator => Self::Validator,
            Stage::Scorer => Self::Scorer,
            Stage::Post => Self::Post,
        }
    }

    /// The name of the function that is called.
    pub(super) const fn export(self) -> &'static str {
        match self {
            Self::Pre | Self::Post => "process",
            Self::Validator => "validate",
            Self::Scorer => "score",
        }
    }
}

/// What a component may import besides `log`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// The time of the call.
    Clock,
    /// Random numbers, drawn from the seed of the decision.
    Random,
    /// Counters of its own.
    Metrics,
}

impl Capability {
    /// All capabilities that can be granted.
    pub const ALL: [Self; 3] = [Self::Clock, Self::Random, Self::Metrics];

    /// As registry records and the WIT package name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Random => "random",
            Self::Metrics => "metrics",
        }
    }
}

/// Limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallLimits {
    /// Linear memory, of all memories together.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Bytes that it may hand to the host at once.
    pub output_bytes: usize,
    /// What it may compute, counted in its own instructions: the same on every machine. `None`: its time limits it.
    pub fuel: Option<u64>,
}

/// What a call is given to work on.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    /// The message, to be changed.
    Pre(MessageRecord<'a>),
    /// The message, to be accepted or rejected.
    Validator(MessageRecord<'a>),
    /// The message, and the candidates to be weighed.
    Scorer(MessageRecord<'a>, &'a [CandidateRecord<'a>]),
    /// The decision, to be annotated.
    Post(DecisionRecord<'a>),
}

impl Work<'_> {
    /// The kind of extension that works on this.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Pre(_) => Kind::Pre,
            Self::Validator(_) => Kind::Validator,
            Self::Scorer(..) => Kind::Scorer,
            Self::Post(_) => Kind::Post,
        }
    }
}

/// What a component returned, unchecked.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// Of a pre-processor.
    Pre {
        /// The message in place of the one it was given.
        message: Option<NewMessage>,
        /// What it adds to the context: a JSON object.
        context: Option<String>,
    },
    /// Of a validator.
    Verdict(WireVerdict),
    /// Of a scorer.
    Scores(Vec<WireScore>),
    /// Of a post-processor: a JSON object.
    Metadata(Option<String>),
}

impl Raw {
    /// About how many bytes it takes once it is checked: texts, and the values that are built of objects.
    pub(in crate::extensions) fn bytes(&self) -> usize {
        let object = |text: &str| text.len() + (text.len() * VALUE_BYTES).min(MAX_VALUES * VALUE_BYTES);
        match self {
            Self::Pre { message, context } => {
                let message = message.as_ref().map_or(0, |message| {
                    message.payload.len() + message.message_type.len() + object(&message.metadata)
                });
                message + context.as_deref().map_or(0, object)
            }
            Self::Verdict(WireVerdict::Accept) => 0,
            Self::Verdict(WireVerdict::Reject(rejection)) => object(&rejection.details),
            Self::Scores(scores) => scores.len() * size_of::<f64>(),
            Self::Metadata(metadata) => metadata.as_deref().map_or(0, object),
        }
    }
}

/// What a value takes at most, apart from its text.
const VALUE_BYTES: usize = 64;

impl From<PreOutput> for Raw {
    fn from(PreOutput { message, context }: PreOutput) -> Self {
        Self::Pre { message, context }
    }
}

/// The environment of a call, as far as its component may ask for it.
#[derive(Debug, Clone, Copy)]
pub struct CallEnv {
    /// What `clock` returns: Unix milliseconds.
    pub now_ms: u64,
    /// What `random` begins with.
    pub seed: u64,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// For how long it may compute.
    pub deadline: Duration,
    /// How long it is waited for, counted from its beginning, whatever keeps it from computing.
    pub patience: Duration,
    /// `None`: it is on a thread of its own.
    pub fast: Option<Fast>,
}

impl Time {
    /// For a call on a thread of its own, which may compute for so long. It is waited for as long as for any call.
    pub const fn of(deadline: Duration) -> Self {
        Self {
            deadline,
            patience: if deadline.as_millis() > PATIENCE.as_millis() {
                deadline
            } else {
                PATIENCE
            },
            fast: None,
        }
    }
}

/// How long a call is waited for where its caller does not say: as long as a time-out may be.
pub(in crate::extensions) const PATIENCE: Duration = Duration::from_millis(*TIMEOUT_MS.end() as u64);

/// On the thread that serves the request.
#[derive(Debug, Clone, Copy)]
pub struct Fast {
    /// After this it is to be begun anew on a thread of its own.
    pub after: Duration,
    /// It was quick so often that it is checked seldom.
    pub trusted: bool,
}

/// What a component logged and counted during a call.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GuestOutput {
    /// Lines of its log.
    pub lines: Vec<(LogLevel, String)>,
    /// Lines that were dropped.
    pub dropped: u64,
    /// Its own counters, by name, and how much each was increased.
    pub counters: Vec<(String, u64)>,
}
