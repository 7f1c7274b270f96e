{{- define "vdbi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name for everything; with the longest suffix (-webhook-tls) it is still a name that Kubernetes takes. */}}
{{- define "vdbi.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* A component's values, as JSON; the Go chart has those of three components below vaultDbInjector. */}}
{{- define "vdbi.values" -}}
{{- mergeOverwrite (deepCopy (index .root.Values .component)) (index .root.Values.vaultDbInjector .component | default dict) | toJson -}}
{{- end -}}

{{/* The webhook's Deployment has the bare name, as in the Go chart. */}}
{{- define "vdbi.workload" -}}
{{- $fullname := include "vdbi.fullname" .root -}}
{{- if eq .component "injector" -}}{{ $fullname }}{{- else -}}{{ printf "%s-%s" $fullname .component }}{{- end -}}
{{- end -}}

{{- define "vdbi.serviceAccount" -}}
{{- $values := include "vdbi.values" . | fromJson -}}
{{- default (printf "%s-%s" (include "vdbi.fullname" .root) .component) $values.serviceAccountName -}}
{{- end -}}

{{- define "vdbi.selector" -}}
app.kubernetes.io/name: {{ include "vdbi.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "vdbi.labels" -}}
app.kubernetes.io/name: {{ include "vdbi.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "vdbi.componentLabels" -}}
{{ include "vdbi.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The components of this release, as JSON. */}}
{{- define "vdbi.components" -}}
{{- $components := list "injector" "renewer" "revoker" -}}
{{- if eq (include "vdbi.nriEnabled" .) "true" -}}{{- $components = append $components "nri" -}}{{- end -}}
{{- toJson $components -}}
{{- end -}}

{{/* A component's own image values win over those of all. A digest belongs to a repository: one of all does not go with another repository. */}}
{{- define "vdbi.image" -}}
{{- $all := .root.Values.image -}}
{{- $own := (include "vdbi.values" . | fromJson).image | default dict -}}
{{- $repository := default $all.repository $own.repository -}}
{{- $digest := $own.digest -}}
{{- if not (or $own.digest $own.tag $own.repository) -}}{{- $digest = $all.digest -}}{{- end -}}
{{- $tag := coalesce $own.tag $all.tag .root.Chart.AppVersion -}}
{{- printf "%s:%s" $repository $tag -}}{{- with $digest -}}@{{ . }}{{- end -}}
{{- end -}}

{{- define "vdbi.pullPolicy" -}}
{{- $own := include "vdbi.values" . | fromJson -}}
{{- coalesce $own.imagePullPolicy ($own.image | default dict).pullPolicy .root.Values.image.pullPolicy -}}
{{- end -}}

{{/* The namespaces whose pods the webhook leaves alone, as JSON: the cluster's own pods cannot wait for it, nor can it for itself. */}}
{{- define "vdbi.excludedNamespaces" -}}
{{- concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toJson -}}
{{- end -}}

{{- define "vdbi.namespaceSelector" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: {{ include "vdbi.excludedNamespaces" . }}
    {{- with .Values.webhook.namespaceSelector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.webhook.namespaceSelector.matchLabels }}
  matchLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
