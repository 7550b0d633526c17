// Whose definitions of monitors and certificates the charts are held to: no program is built of them, so `go mod tidy` would empty
// this file.
module beamline.dev/sidecar/tests/kubernetes/crds

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
