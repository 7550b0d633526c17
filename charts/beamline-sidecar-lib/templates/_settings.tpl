{{/* What the including chart says under `sidecar:`, over this chart's own values. */}}
{{- define "beamline-sidecar.settings" -}}
{{- $defaults := index .Values "beamline-sidecar-lib" -}}
{{- if not $defaults -}}
  {{- fail "beamline-sidecar-lib must be a dependency of this chart, without an alias" -}}
{{- end -}}
{{- $settings := omit (deepCopy $defaults) "global" -}}
{{- $own := .Values.sidecar | default dict -}}
{{- include "beamline-sidecar.checkKeys" (dict "own" $own "known" $settings "path" "sidecar") -}}
{{- $settings = mergeOverwrite $settings (deepCopy $own) -}}
{{- include "beamline-sidecar.checkValues" $settings -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* Charts that include this one have no schema for its values: a mistyped key is refused here. */}}
{{- define "beamline-sidecar.checkKeys" -}}
{{- $open := list "sidecar.config" "sidecar.podAnnotations" "sidecar.resources" -}}
{{- range $key, $value := .own -}}
  {{- $path := printf "%s.%s" $.path $key -}}
  {{- if not (hasKey $.known $key) -}}
    {{- fail (printf "%s is not known; %s has: %s" $path $.path (keys $.known | sortAlpha | join ", ")) -}}
  {{- end -}}
  {{- $known := index $.known $key -}}
  {{- if and (kindIs "map" $known) (not (has $path $open)) -}}
    {{- if not (kindIs "map" $value) -}}
      {{- fail (printf "%s must be a mapping" $path) -}}
    {{- end -}}
    {{- include "beamline-sidecar.checkKeys" (dict "own" $value "known" $known "path" $path) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* What no schema can say, or what one would have said. */}}
{{- define "beamline-sidecar.checkValues" -}}
{{- if not (has (toString .nativeSidecar) (list "auto" "true" "false")) -}}
  {{- fail (printf "sidecar.nativeSidecar is %v, and must be auto, true or false" .nativeSidecar) -}}
{{- end -}}
{{- if not (has .failMode (list "open" "closed")) -}}
  {{- fail (printf "sidecar.failMode is %v, and must be open or closed" .failMode) -}}
{{- end -}}
{{- if not (has .logLevel (list "off" "error" "warn" "info" "debug" "trace")) -}}
  {{- fail (printf "sidecar.logLevel is %v, and must be off, error, warn, info, debug or trace" .logLevel) -}}
{{- end -}}
{{- if not (regexMatch "^https?://" (toString .store.url)) -}}
  {{- fail (printf "sidecar.store.url is %v, and must begin with http:// or https://" .store.url) -}}
{{- end -}}
{{- $sources := list -}}
{{- if .extensions.configMap }}{{ $sources = append $sources "configMap" }}{{ end -}}
{{- if .extensions.persistentVolumeClaim }}{{ $sources = append $sources "persistentVolumeClaim" }}{{ end -}}
{{- if .extensions.image.reference }}{{ $sources = append $sources "image" }}{{ end -}}
{{- if .extensions.initImage.reference }}{{ $sources = append $sources "initImage" }}{{ end -}}
{{- if gt (len $sources) 1 -}}
  {{- fail (printf "sidecar.extensions has %s: the directory of extensions comes from one of them" (join " and " $sources)) -}}
{{- end -}}
{{- $set := list "listen" "admin.listen" "heir.url" "heir.token_file" "heir.tls.ca_file" "state_dir" "log.filter" "refresh.when_expired" "extensions_dir" "shutdown.lame_duck_ms" "shutdown.drain_timeout_ms" -}}
{{- range $key, $value := .config -}}
  {{- if has $key $set -}}
    {{- fail (printf "sidecar.config has %s, which the chart sets itself" $key) -}}
  {{- end -}}
  {{- if or (kindIs "map" $value) (not (regexMatch "^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)*$" $key)) -}}
    {{- fail (printf "sidecar.config has %s: write whole keys, such as decide.persist: true" $key) -}}
  {{- end -}}
{{- end -}}
{{- if eq (int .api.port) (int .admin.port) -}}
  {{- fail (printf "sidecar.api.port and sidecar.admin.port are both %d" (int .api.port)) -}}
{{- end -}}
{{- end -}}
