//! What is added to one pod, or to the template of pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    annotations::{BadAnnotation, Overrides},
    fragment::{Document, Fragment},
    names::{DEFAULT_CONTAINER, FRAGMENT_SHA256, INJECT_LABEL, SIDECAR, STATUS, VERSION},
    patch::Add,
};

/// The grace period of a pod that names none, in seconds.
const DEFAULT_GRACE_SECONDS: u64 = 30;

/// What a classic sidecar has left for its own end after it has drained, in seconds.
const END_SECONDS: u64 = 5;

/// What is done with a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// These changes put the sidecar into it.
    Injected(Injection),
    /// Nothing is to be done.
    Skipped(Skipped),
}

/// The changes that put the sidecar into a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// The additions, in their order.
    pub patch: Vec<Add>,
    /// What the author of the pod should know.
    pub warnings: Vec<String>,
}

/// Whether a pod has the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has none.
    Missing,
    /// It has the one of the fragment.
    Current,
    /// It has the one of another fragment.
    Stale,
}

/// Why nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The pod has the sidecar.
    AlreadyThere,
    /// The pod's label says so.
    Disabled,
}

/// Why a pod cannot get the sidecar.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An annotation is bad.
    #[error(transparent)]
    Annotation(#[from] BadAnnotation),
    /// The label has another value than it can have.
    #[error("the label {INJECT_LABEL} is {0:?}, and must be enabled or disabled")]
    Label(String),
    /// It is no pod.
    #[error("{0}")]
    Malformed(&'static str),
    /// A name is taken.
    #[error("the pod has a {kind} named {name} already, which is a name of the sidecar's: rename it")]
    Name {
        /// `container` or `volume`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// It has the network of its node.
    #[error(
        "the pod has hostNetwork: true: the sidecar would listen on the node, for every process there; remove one of the two"
    )]
    HostNetwork,
    /// It would never end.
    #[error(
        "the pod has restartPolicy {0}, and would never be complete with a classic sidecar: \
         leave out the annotation sidecar.beamline.dev/native, or set it to \"true\""
    )]
    NeverComplete(String),
    /// It is killed too early.
    #[error(
        "terminationGracePeriodSeconds is {grace}, and a classic sidecar that drains for {drain} s needs at least {}: \
         raise it, or lower drainSeconds", drain + END_SECONDS
    )]
    GracePeriod {
        /// What the pod has.
        grace: u64,
        /// How long the sidecar drains.
        drain: u64,
    },
}

/// What puts the sidecar into this pod, which may be the template of a Deployment. It adds and never removes; a pod that
/// has the sidecar is left alone.
///
/// # Errors
/// When the pod cannot get the sidecar; the message is for its author.
pub fn inject(pod: &Value, fragment: &Fragment) -> Result<Outcome, Refusal> {
    let document = &fragment.document;
    let spec = pod["spec"]
        .as_object()
        .ok_or(Refusal::Malformed("the pod has no spec"))?;
    let containers = list(spec, "containers")?;
    let init_containers = list(spec, "initContainers")?;
    if containers.is_empty() {
        return Err(Refusal::Malformed("the pod has no containers"));
    }
    match pod["metadata"]["labels"].get(INJECT_LABEL).map(Value::as_str) {
        None | Some(Some("enabled")) => {}
        Some(Some("disabled")) => return Ok(Outcome::Skipped(Skipped::Disabled)),
        Some(other) => return Err(Refusal::Label(other.unwrap_or_default().to_owned())),
    }
    if has_name(containers, SIDECAR) || has_name(init_containers, SIDECAR) {
        return Ok(Outcome::Skipped(Skipped::AlreadyThere));
    }
    let annotations = pod["metadata"]["annotations"].as_object();
    let (overrides, mut warnings) = Overrides::read(annotations, &document.allow_overrides)?;
    let native = overrides.native.unwrap_or(document.native);
    refuse_impossible(spec, native, document)?;
    refuse_taken(document, containers, init_containers, list(spec, "volumes")?)?;

    let fields = if native {
        &document.native_fields
    } else {
        &document.classic_fields
    };
    let mut sidecar = document.container.clone();
    sidecar.extend(fields.clone());
    overrides.apply(&mut sidecar);
    warnings.extend(taken_ports(&sidecar, containers.iter().chain(init_containers)));

    let mut patch = Vec::new();
    annotate(
        &mut patch,
        pod,
        wanted_annotations(fragment, containers, annotations),
    );
    append(&mut patch, spec, "volumes", &document.volumes);
    let pull_secrets = missing(&document.image_pull_secrets, list(spec, "imagePullSecrets")?);
    append(&mut patch, spec, "imagePullSecrets", &pull_secrets);
    let mut first = document.init_containers.clone();
    let sidecar = Value::Object(sidecar);
    if native {
        first.push(sidecar);
    } else {
        patch.push(Add::new(&["spec", "containers", "0"], sidecar));
    }
    prepend(&mut patch, spec, "initContainers", first);
    Ok(Outcome::Injected(Injection { patch, warnings }))
}

/// Whether the pod has the sidecar, and the one of this fragment.
pub fn state_of(pod: &Value, fragment: &Fragment) -> State {
    let has_sidecar = |name: &str| {
        let containers = pod["spec"][name].as_array();
        containers.is_some_and(|containers| has_name(containers, SIDECAR))
    };
    if !has_sidecar("initContainers") && !has_sidecar("containers") {
        return State::Missing;
    }
    match pod["metadata"]["annotations"][FRAGMENT_SHA256].as_str() {
        Some(digest) if digest == fragment.digest() => State::Current,
        _ => State::Stale,
    }
}

/// A list of the pod's spec; absent, null and empty are the same.
fn list<'a>(spec: &'a Map<String, Value>, name: &str) -> Result<&'a [Value], Refusal> {
    match spec.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(Refusal::Malformed(
            "a list of the pod's spec (containers, initContainers, volumes or imagePullSecrets) is none",
        )),
    }
}

fn has_name(parts: &[Value], name: &str) -> bool {
    parts.iter().any(|part| part["name"] == name)
}

fn refuse_impossible(spec: &Map<String, Value>, native: bool, document: &Document) -> Result<(), Refusal> {
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(Refusal::HostNetwork);
    }
    if native {
        return Ok(());
    }
    let restart = spec.get("restartPolicy").and_then(Value::as_str);
    if let Some(policy) = restart.filter(|policy| *policy != "Always") {
        return Err(Refusal::NeverComplete(policy.to_owned()));
    }
    let grace = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(DEFAULT_GRACE_SECONDS);
    let drain = document.drain_seconds;
    if grace < drain + END_SECONDS {
        return Err(Refusal::GracePeriod { grace, drain });
    }
    Ok(())
}

/// The API server would refuse two of one name too, but without saying whose they are.
fn refuse_taken(
    document: &Document,
    containers: &[Value],
    init_containers: &[Value],
    volumes: &[Value],
) -> Result<(), Refusal> {
    let taken = |kind, parts: &[Value], there: &[&[Value]]| {
        let names = parts.iter().filter_map(|part| part["name"].as_str());
        let mut taken = names.filter(|name| there.iter().any(|there| has_name(there, name)));
        taken.next().map_or(Ok(()), |name| {
            Err(Refusal::Name {
                kind,
                name: name.to_owned(),
            })
        })
    };
    taken(
        "container",
        &document.init_containers,
        &[containers, init_containers],
    )?;
    taken("volume", &document.volumes, &[volumes])
}

/// Those of the first list that the second one has not.
fn missing(wanted: &[Value], there: &[Value]) -> Vec<Value> {
    wanted
        .iter()
        .filter(|wanted| !there.contains(wanted))
        .cloned()
        .collect()
}

/// A warning for each port that another container says it listens at: containers of a pod share one network.
fn taken_ports<'a>(sidecar: &Map<String, Value>, others: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let variables = sidecar.get("env").and_then(Value::as_array);
    let own: Vec<u64> = variables
        .into_iter()
        .flatten()
        .filter(|variable| {
            variable["name"] == "BEAMLINE_LISTEN" || variable["name"] == "BEAMLINE_ADMIN_LISTEN"
        })
        .filter_map(|variable| variable["value"].as_str()?.rsplit_once(':')?.1.parse().ok())
        .collect();
    let mut warnings = Vec::new();
    for other in others {
        for port in other["ports"].as_array().into_iter().flatten() {
            let Some(port) = port["containerPort"].as_u64().filter(|port| own.contains(port)) else {
                continue;
            };
            let name = other["name"].as_str().unwrap_or_default();
            warnings.push(format!(
                "the container {name} has port {port}, at which the sidecar listens too: one of them will not start"
            ));
        }
    }
    warnings
}

fn wanted_annotations(
    fragment: &Fragment,
    containers: &[Value],
    there: Option<&Map<String, Value>>,
) -> BTreeMap<String, Value> {
    let document = &fragment.document;
    let mut wanted: BTreeMap<String, Value> = document
        .annotations
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    if let Some(name) = containers.first().and_then(|first| first["name"].as_str()) {
        wanted.insert(DEFAULT_CONTAINER.to_owned(), name.into());
    }
    // What the author wrote stays as it is.
    wanted.retain(|name, _| there.is_none_or(|there| !there.contains_key(name)));
    wanted.insert(STATUS.to_owned(), "injected".into());
    wanted.insert(VERSION.to_owned(), document.version.as_str().into());
    wanted.insert(FRAGMENT_SHA256.to_owned(), fragment.digest().into());
    wanted
}

fn annotate(patch: &mut Vec<Add>, pod: &Value, annotations: BTreeMap<String, Value>) {
    if !pod["metadata"].is_object() {
        patch.push(Add::new(&["metadata"], Value::Object(Map::new())));
    }
    if pod["metadata"]["annotations"].is_object() {
        let adds = annotations
            .into_iter()
            .map(|(name, value)| Add::new(&["metadata", "annotations", &name], value));
        patch.extend(adds);
    } else {
        let annotations = annotations.into_iter().collect::<Map<_, _>>();
        patch.push(Add::new(&["metadata", "annotations"], Value::Object(annotations)));
    }
}

/// Adds to the end of a list of the spec, which may not be there.
fn append(patch: &mut Vec<Add>, spec: &Map<String, Value>, name: &str, parts: &[Value]) {
    if parts.is_empty() {
        return;
    }
    if spec.get(name).is_some_and(Value::is_array) {
        let adds = parts
            .iter()
            .map(|part| Add::new(&["spec", name, "-"], part.clone()));
        patch.extend(adds);
    } else {
        patch.push(Add::new(&["spec", name], parts.into()));
    }
}

/// Adds to the beginning of a list of the spec, in this order.
fn prepend(patch: &mut Vec<Add>, spec: &Map<String, Value>, name: &str, parts: Vec<Value>) {
    if parts.is_empty() {
        return;
    }
    if spec.get(name).is_some_and(Value::is_array) {
        let adds = parts
            .into_iter()
            .enumerate()
            .map(|(place, part)| Add::new(&["spec", name, &place.to_string()], part));
        patch.extend(adds);
    } else {
        patch.push(Add::new(&["spec", name], parts.into()));
    }
}
