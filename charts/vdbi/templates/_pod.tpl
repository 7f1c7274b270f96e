{{/* A component's pod, metadata and spec: what differs is passed as volumes, mounts, ports and so on. */}}
{{- define "vdbi.podTemplate" -}}
{{- $root := .root -}}{{- $component := .component -}}
{{- $values := include "vdbi.values" . | fromJson -}}
{{- $node := eq $component "nri" -}}
{{- $nri := include "vdbi.nri" $root | fromJson -}}
{{- $caFile := or $root.Values.vaultCa.secretName $root.Values.vaultCa.configMapName -}}
{{- $tlsFile := and (eq $component "injector") (ne $root.Values.certificates.mode "selfManaged") -}}
metadata:
  labels:
    {{- include "vdbi.selector" . | nindent 4 }}
    {{- with $root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A change of the configuration replaces the pods of whom it concerns.
    checksum/configuration: {{ include "vdbi.configuration" . | sha256sum }}
    kubectl.kubernetes.io/default-container: {{ $component }}
    {{- if $root.Values.monitoring.scrapeAnnotations }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "8080"
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "vdbi.serviceAccount" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not $node }}
  {{- if kindIs "invalid" $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "vdbi.selector" $ | nindent 10 }}
      # A rollout's old pods do not count.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- else }}
  {{- with $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- end }}
  containers:
    - name: {{ $component }}
      image: {{ include "vdbi.image" . | quote }}
      imagePullPolicy: {{ include "vdbi.pullPolicy" . }}
      args: [{{ $node | ternary "nri-plugin" $component }}, --config, /etc/vdbi/configuration/config.yaml]
      env:
        - name: POD_NAME
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
        - name: POD_UID
          valueFrom: { fieldRef: { fieldPath: metadata.uid } }
        - name: POD_NAMESPACE
          valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
        - name: NODE_NAME
          valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- if eq $component "injector" }}
        - { name: https, containerPort: 8443 }
        {{- end }}
        - { name: metrics, containerPort: 8080 }
        - { name: health, containerPort: 8888 }
      livenessProbe:
        {{- toYaml $values.livenessProbe | nindent 8 }}
      readinessProbe:
        {{- toYaml $values.readinessProbe | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- toYaml $values.containerSecurityContext | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - { name: configuration, mountPath: /etc/vdbi/configuration, readOnly: true }
        {{- if $tlsFile }}
        - { name: tls, mountPath: /etc/vdbi/tls, readOnly: true }
        {{- end }}
        {{- if $caFile }}
        - { name: vault-ca, mountPath: /etc/vdbi/vault-ca, readOnly: true }
        {{- end }}
        {{- if $root.Values.vaultTokenAudience }}
        - { name: vault-token, mountPath: /var/run/secrets/vdbi, readOnly: true }
        {{- end }}
        {{- if $node }}
        - { name: nri, mountPath: {{ dir $nri.socketPath }} }
        - { name: cache, mountPath: {{ dir $nri.cachePath }} }
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- with $values.extraContainers }}
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumes:
    - name: configuration
      configMap: { name: {{ include "vdbi.fullname" $root }}-{{ $component }} }
    {{- if $tlsFile }}
    - name: tls
      secret: { secretName: {{ include "vdbi.tlsSecret" $root }} }
    {{- end }}
    {{- if $caFile }}
    - name: vault-ca
      {{- if $root.Values.vaultCa.secretName }}
      secret: { secretName: {{ $root.Values.vaultCa.secretName }} }
      {{- else }}
      configMap: { name: {{ $root.Values.vaultCa.configMapName }} }
      {{- end }}
    {{- end }}
    {{- with $root.Values.vaultTokenAudience }}
    - name: vault-token
      projected:
        sources:
          - serviceAccountToken: { path: token, audience: {{ . | quote }}, expirationSeconds: 3600 }
    {{- end }}
    {{- if $node }}
    # Of type Directory: where NRI is off, the pod waits and says why.
    - name: nri
      hostPath: { path: {{ dir $nri.socketPath }}, type: Directory }
    - name: cache
      hostPath: { path: {{ dir $nri.cachePath }}, type: DirectoryOrCreate }
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* cert-manager's Secret is not the release's own: neither takes the other's place when the mode changes. */}}
{{- define "vdbi.tlsSecret" -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{- .Values.certificates.secret.name -}}
{{- else if eq .Values.certificates.mode "certManager" -}}
{{- include "vdbi.fullname" . -}}-certificate
{{- else -}}
{{- include "vdbi.fullname" . -}}-webhook-tls
{{- end -}}
{{- end -}}
