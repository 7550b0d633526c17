//! Labels select pods, annotations configure them; all of them begin with one prefix.

/// What the labels and annotations of the sidecar begin with.
pub const PREFIX: &str = "sidecar.beamline.dev/";

/// The label that selects a pod (`enabled`), or excepts it (`disabled`).
pub const INJECT_LABEL: &str = "sidecar.beamline.dev/inject";

/// The name of the sidecar's container, by which it is recognised.
pub const SIDECAR: &str = "beamline-sidecar";

/// The annotation that says that the sidecar was put into the pod.
pub const STATUS: &str = "sidecar.beamline.dev/status";

/// The annotation with the digest of the fragment that the pod was made with.
pub(super) const FRAGMENT_SHA256: &str = "sidecar.beamline.dev/fragment-sha256";

/// The annotation with the version of the fragment that the pod was made with.
pub(super) const VERSION: &str = "sidecar.beamline.dev/version";

/// The container that `kubectl logs` and `kubectl exec` use.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The form of fragments that this version reads.
pub const FRAGMENT_API_VERSION: &str = "sidecar.beamline.dev/fragment.v1";
