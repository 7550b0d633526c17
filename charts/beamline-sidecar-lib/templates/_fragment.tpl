{{/*
What is put into a pod, in the form that the injector and `beamline-sidecar inject` read. The pod of a chart that includes
the templates of _pod.tpl is made of it too, so all ways give the same pod.
*/}}
{{- define "beamline-sidecar.fragment" -}}
{{- $s := include "beamline-sidecar.settings" . | fromYaml -}}
{{- $native := ternary (semverCompare ">=1.29-0" .Capabilities.KubeVersion.Version) (eq (toString $s.nativeSidecar) "true") (eq (toString $s.nativeSidecar) "auto") -}}
{{- $extensions := "/etc/beamline/extensions" -}}
{{- $hasExtensions := or $s.extensions.configMap $s.extensions.persistentVolumeClaim $s.extensions.image.reference $s.extensions.initImage.reference -}}
{{- if and $s.extensions.image.reference (semverCompare "<1.33-0" .Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "sidecar.extensions.image needs Kubernetes 1.33, and this is %s: use initImage" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
apiVersion: sidecar.beamline.dev/fragment.v1
version: {{ include "beamline-sidecar.version" . | quote }}
native: {{ $native }}
drainSeconds: {{ int $s.drainSeconds }}
allowOverrides: {{ toJson $s.allowOverrides }}
annotations: {{ toJson $s.podAnnotations }}
imagePullSecrets:
{{- range $s.image.pullSecrets }}
  - name: {{ quote . }}
{{- else }} []
{{- end }}
initContainers:
{{- if $s.extensions.initImage.reference }}
  - name: beamline-sidecar-extensions
    image: {{ quote $s.extensions.initImage.reference }}
    imagePullPolicy: {{ $s.extensions.initImage.pullPolicy }}
    command: [cp, -R, {{ printf "%s/." (trimSuffix "/" $s.extensions.initImage.path) | quote }}, {{ $extensions | quote }}]
    resources:
      {{- toYaml $s.resources | nindent 6 }}
    securityContext:
      {{- include "beamline-sidecar.securityContext" $s | nindent 6 }}
    volumeMounts:
      - name: beamline-sidecar-extensions
        mountPath: {{ $extensions }}
{{- if $s.extensions.initImage.statePath }}
  # What was compiled ahead: another container, since the image may have no shell.
  - name: beamline-sidecar-compiled
    image: {{ quote $s.extensions.initImage.reference }}
    imagePullPolicy: {{ $s.extensions.initImage.pullPolicy }}
    command: [cp, -R, {{ printf "%s/." (trimSuffix "/" $s.extensions.initImage.statePath) | quote }}, /var/lib/beamline]
    resources:
      {{- toYaml $s.resources | nindent 6 }}
    securityContext:
      {{- include "beamline-sidecar.securityContext" $s | nindent 6 }}
    volumeMounts:
      - name: beamline-sidecar-state
        mountPath: /var/lib/beamline
{{- end }}
{{- else }} []
{{- end }}
container:
  name: beamline-sidecar
  image: {{ include "beamline-sidecar.image" (dict "image" $s.image "context" $) | quote }}
  imagePullPolicy: {{ $s.image.pullPolicy }}
  # The supervisor starts the serving process again within milliseconds; the kubelet would wait for seconds, then minutes.
  args: [run, --supervised]
  env:
    - name: BEAMLINE_LISTEN
      value: "127.0.0.1:{{ int $s.api.port }}"
    - name: BEAMLINE_ADMIN_LISTEN
      value: "0.0.0.0:{{ int $s.admin.port }}"
    - name: BEAMLINE_HEIR_URL
      value: {{ quote $s.store.url }}
    - name: BEAMLINE_STATE_DIR
      value: /var/lib/beamline
    - name: BEAMLINE_LOG_FILTER
      value: {{ quote $s.logLevel }}
    - name: BEAMLINE_REFRESH_WHEN_EXPIRED
      value: {{ ternary "serve" "refuse" (eq $s.failMode "open") }}
    # A native sidecar is told to stop when the Router has ended, a classic one after preStop: nothing is left to wait for.
    - name: BEAMLINE_SHUTDOWN_LAME_DUCK_MS
      value: "0"
    - name: BEAMLINE_SHUTDOWN_DRAIN_TIMEOUT_MS
      value: "1000"
    {{- if $s.store.tokenSecret.name }}
    - name: BEAMLINE_HEIR_TOKEN_FILE
      value: /etc/beamline/heir-token/{{ $s.store.tokenSecret.key }}
    {{- end }}
    {{- if $s.store.caSecret.name }}
    - name: BEAMLINE_HEIR_TLS_CA_FILE
      value: /etc/beamline/heir-ca/{{ $s.store.caSecret.key }}
    {{- end }}
    {{- if $hasExtensions }}
    - name: BEAMLINE_EXTENSIONS_DIR
      value: {{ $extensions }}
    {{- end }}
    {{- range $key, $value := $s.config }}
    - name: {{ printf "BEAMLINE_%s" ($key | replace "." "_" | upper) }}
      value: {{ kindIs "slice" $value | ternary (join "," $value) $value | toString | quote }}
    {{- end }}
    {{- with $s.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: bl-admin
      containerPort: {{ int $s.admin.port }}
      protocol: TCP
  # Nothing of the pod starts before the sidecar can answer.
  startupProbe:
    httpGet: {path: /ready, port: {{ int $s.admin.port }}}
    periodSeconds: 1
    failureThreshold: 120
  readinessProbe:
    httpGet: {path: /ready, port: {{ int $s.admin.port }}}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 3
  livenessProbe:
    httpGet: {path: /live, port: {{ int $s.admin.port }}}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources:
    {{- toYaml $s.resources | nindent 4 }}
  securityContext:
    {{- include "beamline-sidecar.securityContext" $s | nindent 4 }}
  volumeMounts:
    - name: beamline-sidecar-state
      mountPath: /var/lib/beamline
    {{- if $s.store.tokenSecret.name }}
    - name: beamline-sidecar-heir-token
      mountPath: /etc/beamline/heir-token
      readOnly: true
    {{- end }}
    {{- if $s.store.caSecret.name }}
    - name: beamline-sidecar-heir-ca
      mountPath: /etc/beamline/heir-ca
      readOnly: true
    {{- end }}
    {{- if $hasExtensions }}
    - name: beamline-sidecar-extensions
      mountPath: {{ $extensions }}
      {{- if $s.extensions.image.subPath }}
      subPath: {{ quote $s.extensions.image.subPath }}
      {{- end }}
      readOnly: true
    {{- end }}
nativeFields:
  restartPolicy: Always
# Without a shell, so that the image needs none.
classicFields:
  lifecycle:
    preStop:
      sleep:
        seconds: {{ int $s.drainSeconds }}
volumes:
  - name: beamline-sidecar-state
    emptyDir:
      sizeLimit: {{ quote $s.state.sizeLimit }}
  {{- if $s.store.tokenSecret.name }}
  - name: beamline-sidecar-heir-token
    secret:
      secretName: {{ quote $s.store.tokenSecret.name }}
      defaultMode: 292
  {{- end }}
  {{- if $s.store.caSecret.name }}
  - name: beamline-sidecar-heir-ca
    secret:
      secretName: {{ quote $s.store.caSecret.name }}
      defaultMode: 292
  {{- end }}
  {{- if $s.extensions.configMap }}
  - name: beamline-sidecar-extensions
    configMap:
      name: {{ quote $s.extensions.configMap }}
      defaultMode: 292
  {{- else if $s.extensions.persistentVolumeClaim }}
  - name: beamline-sidecar-extensions
    persistentVolumeClaim:
      claimName: {{ quote $s.extensions.persistentVolumeClaim }}
      readOnly: true
  {{- else if $s.extensions.image.reference }}
  - name: beamline-sidecar-extensions
    image:
      reference: {{ quote $s.extensions.image.reference }}
      pullPolicy: {{ $s.extensions.image.pullPolicy }}
  {{- else if $s.extensions.initImage.reference }}
  - name: beamline-sidecar-extensions
    emptyDir:
      sizeLimit: {{ quote $s.state.sizeLimit }}
  {{- end }}
{{- end -}}

{{- define "beamline-sidecar.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default (include "beamline-sidecar.version" .context) }}
{{- end -}}
{{- end -}}

{{/* What the restricted standard of Pod Security asks for, and a root file system that cannot be written. */}}
{{- define "beamline-sidecar.securityContext" -}}
runAsNonRoot: true
{{- if not .openshift }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
