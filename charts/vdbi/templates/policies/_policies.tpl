{{- define "vdbi.policyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "vdbi.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end -}}

{{/* A CEL list of strings. */}}
{{- define "vdbi.celList" -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}'{{ $item }}'{{ end }}]
{{- end -}}

{{/* The directories of the host that only node plugins mount, as a CEL list. On most nodes /var/run is a link to /run. */}}
{{- define "vdbi.protectedPaths" -}}
{{- $nri := include "vdbi.nri" . | fromJson -}}
{{- $protected := list -}}
{{- range $path := concat (list (dir $nri.socketPath) (dir $nri.cachePath)) .Values.policies.hostPaths.additionalPaths -}}
{{- $path = printf "%s/" (clean $path) -}}
{{- $protected = append $protected $path -}}
{{- if hasPrefix "/run/" $path -}}{{- $protected = append $protected (printf "/var%s" $path) -}}{{- end -}}
{{- if hasPrefix "/var/run/" $path -}}{{- $protected = append $protected (trimPrefix "/var" $path) -}}{{- end -}}
{{- end -}}
{{- include "vdbi.celList" ($protected | uniq) -}}
{{- end -}}

{{/* A path as the node resolves it, with one slash at the end: "//run/./nri" is "/run/nri/". The API server takes no "..". */}}
{{- define "vdbi.normalizedPath" -}}
('/' + {{ . }} + '/').split('/').filter(part, part != '' && part != '.').map(part, part + '/').join('')
{{- end -}}

{{/* Whether a normalized path is, contains or lies in a protected one, or leads there through a process's own view of the host. */}}
{{- define "vdbi.reaches" -}}
variables.protected.exists(protected, protected.startsWith('/' + {{ . }}) || ('/' + {{ . }}).startsWith(protected)) ||
('/' + {{ . }}).matches('^/(proc/([0-9]+|self|thread-self)/.+|dev/fd/.*)')
{{- end -}}
