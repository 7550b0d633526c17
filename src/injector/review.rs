//! `AdmissionReview` of `admission.k8s.io/v1`: what the API server asks, and the answer.
//!
//! Own types, and few: the patch goes as base64, as the documentation has it, and the pod stays the JSON value that it is.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::inject::{Fragment, Outcome, inject};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The answer to a review, and what was decided.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    pub(super) verdict: Verdict,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Injected,
    Skipped,
    Refused,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    #[serde(default)]
    group: String,
    version: String,
    kind: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
}

/// Answers a review. There are no side effects, so a dry run is answered as any other.
///
/// # Errors
/// Why this is no review that can be answered.
pub(super) fn answer(body: &[u8], fragment: &Fragment) -> Result<Answer, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("the body is no AdmissionReview: {error}"))?;
    if (review.api_version.as_str(), review.kind.as_str()) != (API_VERSION, KIND) {
        return Err(format!(
            "the body is {} {}, and must be {API_VERSION} {KIND}",
            review.api_version, review.kind
        ));
    }
    let request = review.request.ok_or("the AdmissionReview has no request")?;
    let mut response = Response {
        uid: &request.uid,
        allowed: true,
        patch_type: None,
        patch: None,
        warnings: Vec::new(),
        status: None,
    };
    let is_new_pod = request.operation == "CREATE"
        && (
            request.kind.group.as_str(),
            request.kind.version.as_str(),
            request.kind.kind.as_str(),
        ) == ("", "v1", "Pod");
    let verdict = if is_new_pod {
        decide(&request, fragment, &mut response)?
    } else {
        Verdict::Skipped
    };
    let body = json!({"apiVersion": API_VERSION, "kind": KIND, "response": response});
    Ok(Answer {
        body: body.to_string().into_bytes(),
        verdict,
    })
}

fn decide(request: &Request, fragment: &Fragment, response: &mut Response<'_>) -> Result<Verdict, String> {
    Ok(match inject(&request.object, fragment) {
        Ok(Outcome::Skipped(_)) => Verdict::Skipped,
        Ok(Outcome::Injected(injection)) => {
            let patch = serde_json::to_vec(&injection.patch).map_err(|error| error.to_string())?;
            response.patch_type = Some("JSONPatch");
            response.patch = Some(STANDARD.encode(patch));
            response.warnings = injection.warnings;
            Verdict::Injected
        }
        Err(refusal) => {
            let message = format!("beamline-sidecar cannot be put into the pod: {refusal}");
            // The pod may have no name yet, and its own namespace may be empty.
            let metadata = &request.object["metadata"];
            let name = metadata["name"].as_str().or(metadata["generateName"].as_str());
            tracing::info!(
                namespace = request.namespace,
                pod = name,
                reason = %refusal,
                "A pod was refused."
            );
            response.allowed = false;
            response.status = Some(json!({"code": 422, "reason": "Invalid", "message": message}));
            Verdict::Refused
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(object: &Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": KIND, "request": {
            "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "namespace": "apps", "object": object, "dryRun": true, "aFieldOfLater": {},
        }})
    }

    fn ask(review: &Value) -> Result<(Value, Verdict), String> {
        let fragment = Fragment::of_default_values().unwrap();
        answer(review.to_string().as_bytes(), &fragment).map(|answer| {
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(
                (&body["apiVersion"], &body["kind"]),
                (&API_VERSION.into(), &KIND.into())
            );
            assert_eq!(body["response"]["uid"], "u-1");
            (body["response"].clone(), answer.verdict)
        })
    }

    #[test]
    fn a_pod_gets_a_patch_in_base64_and_the_warnings() {
        let pod = json!({
            "metadata": {"annotations": {"sidecar.beamline.dev/typo": "x"}},
            "spec": {"containers": [{"name": "router"}]},
        });
        let (response, verdict) = ask(&review(&pod)).unwrap();
        assert_eq!(verdict, Verdict::Injected);
        assert_eq!(
            (&response["allowed"], &response["patchType"]),
            (&true.into(), &"JSONPatch".into())
        );
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        assert!(
            patch
                .as_array()
                .unwrap()
                .iter()
                .all(|operation| operation["op"] == "add")
        );
        assert!(response["warnings"][0].as_str().unwrap().contains("typo"));
        assert_eq!(response.get("status"), None);
    }

    #[test]
    fn a_pod_that_needs_nothing_is_allowed_and_a_bad_one_is_refused_with_its_reason() {
        let there = json!({"spec": {"containers": [{"name": "router"}], "initContainers": [{"name": "beamline-sidecar"}]}});
        let (response, verdict) = ask(&review(&there)).unwrap();
        assert_eq!(
            (response, verdict),
            (json!({"uid": "u-1", "allowed": true}), Verdict::Skipped)
        );
        let bad = json!({
            "metadata": {"annotations": {"sidecar.beamline.dev/native": "maybe"}},
            "spec": {"containers": [{"name": "router"}]},
        });
        let (response, verdict) = ask(&review(&bad)).unwrap();
        assert_eq!(verdict, Verdict::Refused);
        assert_eq!(
            (&response["allowed"], response.get("patch")),
            (&false.into(), None)
        );
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains("sidecar.beamline.dev/native"), "{message}");
    }

    #[test]
    fn what_is_no_new_pod_is_allowed_and_what_is_no_review_is_no_answer() {
        let pod = json!({"spec": {"containers": [{"name": "router"}]}});
        let mut other = review(&pod);
        other["request"]["kind"]["kind"] = "Deployment".into();
        assert_eq!(ask(&other).unwrap().1, Verdict::Skipped);
        let mut update = review(&pod);
        update["request"]["operation"] = "UPDATE".into();
        assert_eq!(ask(&update).unwrap().1, Verdict::Skipped);
        let mut old = review(&pod);
        old["apiVersion"] = "admission.k8s.io/v1beta1".into();
        assert!(ask(&old).unwrap_err().contains("v1beta1"));
        assert!(
            ask(&json!({"apiVersion": API_VERSION, "kind": KIND}))
                .unwrap_err()
                .contains("no request")
        );
        assert!(ask(&json!([])).unwrap_err().contains("no AdmissionReview"));
    }
}
