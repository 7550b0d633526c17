{{/* The version of this chart and of the image that goes with it: `.Chart` is the one of the chart that includes it. */}}
{{- define "beamline-sidecar.version" -}}0.1.0{{- end -}}
