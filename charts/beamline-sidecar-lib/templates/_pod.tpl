{{/*
The parts of a pod, for the chart of a Router:

  metadata:
    annotations:
      {{- include "beamline-sidecar.annotations" . | nindent 6 }}
  spec:
    initContainers:
      {{- include "beamline-sidecar.initContainers" . | nindent 6 }}     first of all
    containers:
      {{- include "beamline-sidecar.containers" . | nindent 6 }}         first of all; nothing where the sidecar is native
    volumes:
      {{- include "beamline-sidecar.volumes" . | nindent 6 }}

Each is a list that is never wrong to include: an empty one renders nothing.
*/}}

{{- define "beamline-sidecar.initContainers" -}}
{{- $f := include "beamline-sidecar.fragment" . | fromYaml -}}
{{- $list := $f.initContainers -}}
{{- if $f.native -}}
  {{- $list = append $list (merge (dict) $f.nativeFields $f.container) -}}
{{- end -}}
{{- if $list }}{{ toYaml $list }}{{ end -}}
{{- end -}}

{{- define "beamline-sidecar.containers" -}}
{{- $f := include "beamline-sidecar.fragment" . | fromYaml -}}
{{- if not $f.native -}}
{{- toYaml (list (merge (dict) $f.classicFields $f.container)) -}}
{{- end -}}
{{- end -}}

{{- define "beamline-sidecar.volumes" -}}
{{- $f := include "beamline-sidecar.fragment" . | fromYaml -}}
{{- if $f.volumes }}{{ toYaml $f.volumes }}{{ end -}}
{{- end -}}

{{- define "beamline-sidecar.imagePullSecrets" -}}
{{- $f := include "beamline-sidecar.fragment" . | fromYaml -}}
{{- if $f.imagePullSecrets }}{{ toYaml $f.imagePullSecrets }}{{ end -}}
{{- end -}}

{{/* Of the pod, not of the Deployment. A pod that has them is restarted by an upgrade that changes the sidecar. */}}
{{- define "beamline-sidecar.annotations" -}}
{{- $f := include "beamline-sidecar.fragment" . | fromYaml -}}
{{- $own := dict "sidecar.beamline.dev/status" "injected" "sidecar.beamline.dev/version" $f.version "sidecar.beamline.dev/fragment-sha256" (toJson $f | sha256sum) -}}
{{- toYaml (merge $own $f.annotations) -}}
{{- end -}}

{{/* A classic sidecar that drains for longer than the pod may take is killed with the Router's last requests. */}}
{{- define "beamline-sidecar.terminationGracePeriodSeconds" -}}
{{- $f := include "beamline-sidecar.fragment" .context | fromYaml -}}
{{- if and (not $f.native) (lt (int .seconds) (add (int $f.drainSeconds) 5)) -}}
  {{- fail (printf "terminationGracePeriodSeconds is %d, and a classic sidecar that drains for %d s needs at least %d: raise it, or lower sidecar.drainSeconds" (int .seconds) (int $f.drainSeconds) (add (int $f.drainSeconds) 5)) -}}
{{- end -}}
{{- int .seconds -}}
{{- end -}}

{{/* Rules of egress for the NetworkPolicy of the Router's pods: names, and HEIR. Traffic on 127.0.0.1 needs none. */}}
{{- define "beamline-sidecar.networkPolicyEgress" -}}
{{- $s := include "beamline-sidecar.settings" . | fromYaml -}}
{{- $url := urlParse $s.store.url -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
- ports:
    - {protocol: TCP, port: {{ $port }}}
{{- end -}}
