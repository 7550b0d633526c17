//! The client: what it does to each policy, what it is answered, and what it makes of that.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    model::{Effect, History, Policy},
    plan::{Operation, Scale},
};
use crate::support::{Answer, Client};

/// Everything that is known about a run.
pub(super) struct World {
    pub(super) policies: Vec<Policy>,
    pub(super) began: Instant,
    pub(super) level: Level,
    sidecar: RwLock<Client>,
    /// Set from just before the sidecar is killed until it listens again.
    pub(super) sidecar_away: AtomicBool,
    /// Counts kills, before each.
    pub(super) sidecar_kills: AtomicU64,
    /// Counts restores, before and after each: odd while one is under way.
    pub(super) restores: AtomicU64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    complaints: Mutex<Vec<String>>,
}

/// A list as the sidecar answers it.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    policies: Vec<&'a RawValue>,
}

impl World {
    pub(super) fn new(scale: Scale, sidecar: Client) -> Self {
        let policy = |index: usize| {
            let tenant = index % scale.tenants;
            Policy::new(
                format!("tenant-{tenant}"),
                format!("policy-{}", index / scale.tenants),
            )
        };
        Self {
            policies: (0..scale.policies).map(policy).collect(),
            began: Instant::now(),
            level: scale.level,
            sidecar: RwLock::new(sidecar),
            sidecar_away: AtomicBool::new(false),
            sidecar_kills: AtomicU64::new(0),
            restores: AtomicU64::new(0),
            counts: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    pub(super) fn sidecar(&self) -> Client {
        self.sidecar.read().unwrap().clone()
    }

    pub(super) fn sidecar_is_at(&self, client: Client) {
        *self.sidecar.write().unwrap() = client;
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(super) fn counted(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub(super) fn counts(&self) -> String {
        let counts = self.counts.lock().unwrap();
        let parts: Vec<String> = counts
            .iter()
            .map(|(what, number)| format!("{what} {number}"))
            .collect();
        parts.join(", ")
    }

    pub(super) fn complain(&self, what: impl Into<String>) {
        let at = self.began.elapsed().as_secs_f64();
        self.complaints
            .lock()
            .unwrap()
            .push(format!("at {at:.3} s: {}", what.into()));
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// Sends a request. `None`: the sidecar was killed meanwhile, so there is no answer to judge.
    async fn ask(&self, method: Method, path: &str, body: String) -> Option<Answer> {
        let kills = self.sidecar_kills.load(SeqCst);
        let answer = self.sidecar().send(method.clone(), path, &[], body).await;
        match answer {
            Ok(answer) => Some(answer),
            Err(_) if self.sidecar_kills.load(SeqCst) != kills || self.sidecar_away.load(SeqCst) => {
                self.count("unanswered");
                None
            }
            Err(error) => {
                self.complain(format!("{method} {path}: {error}"));
                None
            }
        }
    }

    pub(super) async fn carry_out(self: Arc<Self>, operation: Operation) {
        if self.sidecar_away.load(SeqCst) {
            return;
        }
        match operation {
            Operation::Get(which) => self.get(&self.policies[which]).await,
            Operation::List(which) => self.list(which).await,
            Operation::Put(which) => {
                let policy = &self.policies[which];
                // A client is writing to it; waiting would make a queue of clients behind a slow store.
                if let Ok(mut history) = policy.turn.try_lock() {
                    let effect = Effect::Put(policy.next_serial());
                    self.write(policy, &mut history, effect).await;
                }
            }
            Operation::Delete(which) => {
                let policy = &self.policies[which];
                if let Ok(mut history) = policy.turn.try_lock() {
                    policy.deleted.store(true, SeqCst);
                    self.write(policy, &mut history, Effect::Deleted).await;
                }
            }
        }
    }

    async fn get(&self, policy: &Policy) {
        if let Some(answer) = self.ask(Method::GET, &policy.path(), String::new()).await {
            self.count("get");
            self.look(policy, &answer);
        }
    }

    /// The effect that an answer to a GET shows, which must be one that the policy can have had.
    pub(super) fn look(&self, policy: &Policy, answer: &Answer) -> Option<Effect> {
        match answer.status {
            StatusCode::OK => match policy.recognise(&answer.body) {
                Ok(serial) => return Some(Effect::Put(serial)),
                Err(wrong) => self.complain(wrong),
            },
            StatusCode::NOT_FOUND if policy.deleted.load(SeqCst) => return Some(Effect::Deleted),
            // What was deleted once may have come back, and only HEIR could say.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                if !self.level.has_validators() && policy.deleted.load(SeqCst) =>
            {
                self.count("only HEIR knew");
            }
            status => self.complain(format!("GET {} was answered {status}", policy.path())),
        }
        None
    }

    async fn list(&self, which: usize) {
        let tenant = &self.policies[which].tenant;
        let path = format!("/api/v1/policies/{tenant}");
        let Some(answer) = self.ask(Method::GET, &path, String::new()).await else {
            return;
        };
        self.count("list");
        if answer.status != StatusCode::OK {
            self.complain(format!("GET {path} was answered {}", answer.status));
            return;
        }
        let list: List<'_> = serde_json::from_slice(&answer.body).unwrap();
        let members: Vec<&Policy> = self.policies.iter().filter(|p| p.tenant == *tenant).collect();
        for element in list.policies {
            let bytes = element.get().as_bytes();
            if !members.iter().any(|policy| policy.recognise(bytes).is_ok()) {
                self.complain(format!("the list of {tenant} has {element}"));
            }
        }
    }

    /// Makes a write and, once it is acknowledged, looks whether the sidecar shows it.
    async fn write(&self, policy: &Policy, history: &mut History, effect: Effect) {
        let (method, body) = match effect {
            Effect::Put(serial) => (Method::PUT, policy.body(serial)),
            Effect::Deleted => (Method::DELETE, String::new()),
        };
        let (restores, kills) = (self.restores.load(SeqCst), self.sidecar_kills.load(SeqCst));
        let answer = self.ask(method.clone(), &policy.path(), body).await;
        let at = self.began.elapsed().as_secs_f64();
        let Some(answer) = answer else {
            history.log.push(format!("{at:.3} {effect:?} unanswered"));
            history.unanswered.push(effect);
            return;
        };
        let queued = answer.header("x-beamline-write") == "queued";
        history
            .log
            .push(format!("{at:.3} {effect:?} {} queued={queued}", answer.status));
        match (effect, answer.status) {
            (Effect::Put(_), StatusCode::OK | StatusCode::CREATED)
            | (Effect::Deleted, StatusCode::OK | StatusCode::NO_CONTENT) => {
                self.count(if queued { "queued" } else { "forwarded" });
                history.acknowledged = effect;
                history.unanswered.clear();
            }
            (Effect::Deleted, StatusCode::NOT_FOUND) => {
                // Already gone is what was asked for.
                self.count("nothing to delete");
                history.acknowledged = effect;
                history.unanswered.clear();
            }
            (_, status) if status.is_server_error() => {
                self.count("refused");
                history.unanswered.push(effect);
                return;
            }
            (_, status) => {
                self.complain(format!("{method} {} was answered {status}", policy.path()));
                return;
            }
        }
        let Some(answer) = self.ask(Method::GET, &policy.path(), String::new()).await else {
            return;
        };
        let shown = self.look(policy, &answer);
        let undisturbed = self.restores.load(SeqCst) == restores && restores.is_multiple_of(2);
        // What is gone is unknown where only single policies can be asked for, and only HEIR could say so again.
        let only_heir_knows = effect == Effect::Deleted && shown.is_none() && !self.level.has_validators();
        // A queued write may have become a conflict by now, which is for the judge to look at.
        if shown != Some(effect)
            && !only_heir_knows
            && !queued
            && undisturbed
            && self.sidecar_kills.load(SeqCst) == kills
        {
            let path = policy.path();
            self.complain(format!(
                "{path}: {effect:?} was acknowledged, and {shown:?} is shown"
            ));
        }
    }

    /// Writes past the sidecar to policies for which a write waits in its journal.
    pub(super) async fn interfere(&self, store: &Client, random: &mut fastrand::Rng) {
        for _ in 0..3 {
            let policy = &self.policies[random.usize(..self.policies.len())];
            let mut history = policy.turn.lock().await;
            let effect = Effect::Put(policy.next_serial());
            self.write(policy, &mut history, effect).await;
            if !history
                .log
                .last()
                .is_some_and(|last| last.ends_with("queued=true"))
            {
                continue;
            }
            let theirs = policy.next_serial();
            let answer = store.put(&policy.path(), policy.body(theirs)).await;
            assert!(answer.status.is_success(), "{}", answer.text());
            let at = self.began.elapsed().as_secs_f64();
            history
                .log
                .push(format!("{at:.3} another client put {theirs} into the store"));
            self.count("interferences");
        }
    }
}
