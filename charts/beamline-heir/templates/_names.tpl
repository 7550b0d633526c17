{{- define "heir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if or (contains $name .Release.Name) (eq .Release.Name "heir") -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "heir.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: store
{{- end -}}

{{- define "heir.labels" -}}
{{ include "heir.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "heir.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "heir.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "heir.pod" -}}
{{- $postgres := eq .Values.database "postgres" -}}
metadata:
  labels:
    {{- include "heir.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: 30
  securityContext:
    runAsNonRoot: true
    {{- if not .Values.openshift }}
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ quote . }}
    {{- end }}
  {{- end }}
  containers:
    - name: store
      image: {{ include "heir.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - store
        - --listen=0.0.0.0:8090
        {{- if $postgres }}
        - --db=$(DATABASE_URL)
        {{- else }}
        - --db=/var/lib/heir/heir.db
        {{- end }}
        - --modules-kept-days={{ int .Values.modulesKeptDays }}
        {{- if .Values.tokenSecret.name }}
        - --token-file=/etc/heir/token/{{ .Values.tokenSecret.key }}
        {{- end }}
        {{- if .Values.tlsSecret.name }}
        - --tls-cert=/etc/heir/tls/tls.crt
        - --tls-key=/etc/heir/tls/tls.key
        {{- end }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if $postgres }}
      env:
        - name: DATABASE_URL
          valueFrom:
            secretKeyRef:
              name: {{ required "postgres.urlSecret.name is needed with database: postgres" .Values.postgres.urlSecret.name }}
              key: {{ .Values.postgres.urlSecret.key }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8090
          protocol: TCP
      {{- $probe := dict "path" "/health" "port" 8090 "scheme" (ternary "HTTPS" "HTTP" (ne .Values.tlsSecret.name "")) }}
      startupProbe:
        httpGet: {{ toJson $probe }}
        periodSeconds: 1
        failureThreshold: 120
      readinessProbe:
        httpGet: {{ toJson $probe }}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 3
      livenessProbe:
        tcpSocket: {port: 8090}
        periodSeconds: 10
        failureThreshold: 6
      # Serves on until the Service's endpoints are without it.
      lifecycle:
        preStop:
          sleep: {seconds: 5}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "heir.securityContext" . | nindent 8 }}
      volumeMounts:
        {{- if not $postgres }}
        - name: data
          mountPath: /var/lib/heir
        {{- end }}
        {{- if .Values.tokenSecret.name }}
        - name: token
          mountPath: /etc/heir/token
          readOnly: true
        {{- end }}
        {{- if .Values.tlsSecret.name }}
        - name: tls
          mountPath: /etc/heir/tls
          readOnly: true
        {{- end }}
  volumes:
    {{- if .Values.tokenSecret.name }}
    - name: token
      secret: {secretName: {{ quote .Values.tokenSecret.name }}, defaultMode: 288}
    {{- end }}
    {{- if .Values.tlsSecret.name }}
    - name: tls
      secret: {secretName: {{ quote .Values.tlsSecret.name }}, defaultMode: 288}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  affinity:
    {{- if .Values.affinity }}
    {{- toYaml .Values.affinity | nindent 4 }}
    {{- else }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "heir.selectorLabels" . | nindent 16 }}
    {{- end }}
{{- end -}}
