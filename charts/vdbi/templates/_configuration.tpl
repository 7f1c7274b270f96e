{{/* One label for the webhook's selector, renewer, revoker and node plugin; the Go product has a key for each. */}}
{{- define "vdbi.podLabel" -}}
{{- $configuration := .Values.vaultDbInjector.configuration -}}
{{- $label := "" -}}{{- $from := "" -}}
{{- range $pair := list
      (list "podLabel" .Values.podLabel)
      (list "vaultDbInjector.configuration.webhookMatchLabels" $configuration.webhookMatchLabels)
      (list "vaultDbInjector.configuration.injectorLabel" $configuration.injectorLabel)
      (list "vaultDbInjector.configuration.nri.podLabel" ($configuration.nri | default dict).podLabel) -}}
{{- $name := first $pair -}}{{- $value := last $pair -}}
{{- if and $value (not $label) -}}
{{- $label = $value -}}{{- $from = $name -}}
{{- else if and $value (ne $value $label) -}}
{{- fail (printf "\n%s (%s) and %s (%s) are the same label: set podLabel alone" $from $label $name $value) -}}
{{- end -}}
{{- end -}}
{{- default "vault-db-injector" $label -}}
{{- end -}}

{{- define "vdbi.release" -}}
{{- default (include "vdbi.fullname" .) .Values.vaultDbInjector.configuration.release -}}
{{- end -}}

{{/* What is set below nri, and what is set below vaultDbInjector.configuration.nri, as one map in JSON. */}}
{{- define "vdbi.nri" -}}
{{- $chart := .Values.nri -}}{{- $file := .Values.vaultDbInjector.configuration.nri | default dict -}}
{{- $nri := dict -}}
{{- $_ := set $nri "enabled" (or $chart.enabled $file.enabled | default false) -}}
{{- range $key := list "tripwire" "requirePlugin" "socketPath" "cachePath" "pluginName" "pluginIndex" "fetchTimeout" -}}
{{- range $values := list $file $chart -}}
{{- if and (hasKey $values $key) (not (has (toString (get $values $key)) (list "" "<nil>"))) -}}
{{- $value := get $values $key -}}
{{- if and (hasKey $nri $key) (ne (toString $value) (toString (get $nri $key))) -}}
{{- fail (printf "\nnri.%s (%v) and vaultDbInjector.configuration.nri.%s (%v) are the same: set nri.%s alone" $key $value $key (get $nri $key) $key) -}}
{{- end -}}
{{- $_ := set $nri $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "enabled" "maxConcurrent" -}}
{{- range $values := list ($file.prewarmer | default dict) ($chart.prewarmer | default dict) -}}
{{- if and (hasKey $values $key) (not (kindIs "invalid" (get $values $key))) -}}
{{- $_ := set $nri (printf "prewarmer.%s" $key) (get $values $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $nri "pluginIndex") (not (kindIs "string" $nri.pluginIndex)) -}}
{{- $_ := set $nri "pluginIndex" (printf "%02d" (int $nri.pluginIndex)) -}}
{{- end -}}
{{- $fullname := include "vdbi.fullname" . -}}
{{- $_ := set $nri "pluginName" (default $fullname $nri.pluginName) -}}
{{- $_ := set $nri "cachePath" (default (printf "/run/%s/nri/cache.json" $fullname) $nri.cachePath) -}}
{{- $_ := set $nri "socketPath" (default "/var/run/nri/nri.sock" $nri.socketPath) -}}
{{- toJson $nri -}}
{{- end -}}

{{- define "vdbi.nriEnabled" -}}
{{- (include "vdbi.nri" . | fromJson).enabled | default false -}}
{{- end -}}

{{/* The login role: each component's own, that of all, or the component's name. */}}
{{- define "vdbi.kubeRole" -}}
{{- $configuration := .root.Values.vaultDbInjector.configuration -}}
{{- $own := (include "vdbi.values" . | fromJson).configuration | default dict -}}
{{- $named := dict "injector" "" "renewer" $configuration.kubeRoleRenewer "revoker" $configuration.kubeRoleRevoker "nri" $configuration.kubeRoleNri -}}
{{- coalesce $own.kubeRole (get $named .component) $configuration.kubeRole .component -}}
{{- end -}}

{{/* What the chart knows itself, by path. */}}
{{- define "vdbi.derivedConfiguration" -}}
{{- $root := .root -}}{{- $fullname := include "vdbi.fullname" $root -}}
{{- $derived := dict
      "release" (include "vdbi.release" $root)
      "injectorLabel" (include "vdbi.podLabel" $root)
      "kubeRole" (include "vdbi.kubeRole" .)
      "kubeRoleNri" ""
      "nri.podLabel" (include "vdbi.podLabel" $root) -}}
{{- range $key, $value := include "vdbi.nri" $root | fromJson -}}
{{- $_ := set $derived (printf "nri.%s" $key) $value -}}
{{- end -}}
{{- if eq $root.Values.certificates.mode "selfManaged" -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $_ := set $derived "webhook.selfManaged" true -}}
{{- $_ := set $derived "webhook.secretName" (printf "%s-webhook-tls" $fullname) -}}
{{- $_ := set $derived "webhook.configurationName" $fullname -}}
{{- $_ := set $derived "webhook.dnsNames" (include "vdbi.webhookNames" $root | fromJsonArray) -}}
{{- else -}}
{{- $_ := set $derived "certFile" "/etc/vdbi/tls/tls.crt" -}}
{{- $_ := set $derived "keyFile" "/etc/vdbi/tls/tls.key" -}}
{{- end -}}
{{- with $root.Values.vaultCa -}}
{{- if or .secretName .configMapName -}}{{- $_ := set $derived "vaultCaCert" (printf "/etc/vdbi/vault-ca/%s" .key) -}}{{- end -}}
{{- end -}}
{{- if $root.Values.vaultTokenAudience -}}
{{- $_ := set $derived "serviceAccountTokenFile" "/var/run/secrets/vdbi/token" -}}
{{- end -}}
{{- toJson $derived -}}
{{- end -}}

{{- define "vdbi.webhookNames" -}}
{{- $fullname := include "vdbi.fullname" . -}}
{{- list $fullname (printf "%s.%s" $fullname .Release.Namespace) (printf "%s.%s.svc" $fullname .Release.Namespace) | toJson -}}
{{- end -}}

{{/* A component's configuration file: what it understands (files/configuration-keys.json), from vaultDbInjector.configuration, its own
configuration over that, and what the chart knows over both. */}}
{{- define "vdbi.configuration" -}}
{{- $component := .component -}}
{{- $shared := .root.Values.vaultDbInjector.configuration -}}
{{- $own := (include "vdbi.values" . | fromJson).configuration | default dict -}}
{{- $derived := include "vdbi.derivedConfiguration" . | fromJson -}}
{{- $file := dict -}}
{{- range $path, $users := .root.Files.Get "files/configuration-keys.json" | fromJson -}}
{{- if has $component $users -}}
{{- $parts := splitList "." $path -}}
{{- $found := dict -}}
{{- range $tree := list $shared $own -}}
{{- $node := $tree -}}
{{- range $part := $parts -}}
{{- if kindIs "map" $node -}}{{- $node = get $node $part -}}{{- else -}}{{- $node = "" -}}{{- end -}}
{{- end -}}
{{- if not (or (kindIs "invalid" $node) (has (toString $node) (list "" "[]"))) -}}{{- $_ := set $found "value" $node -}}{{- end -}}
{{- end -}}
{{- if hasKey $derived $path -}}{{- $_ := set $found "value" (get $derived $path) -}}{{- end -}}
{{- if and (hasKey $found "value") (ne (toString $found.value) "") -}}
{{- $value := $found.value -}}
{{- if kindIs "float64" $value -}}{{- if eq $value (floor $value) -}}{{- $value = int64 $value -}}{{- end -}}{{- end -}}
{{- $level := $file -}}
{{- range $part := initial $parts -}}
{{- if not (hasKey $level $part) -}}{{- $_ := set $level $part dict -}}{{- end -}}
{{- $level = get $level $part -}}
{{- end -}}
{{- $_ := set $level (last $parts) $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $file -}}
{{- end -}}

{{/* The Leases of a component, as JSON. Those of one shard stay in, so that a change of shards leaves the old replicas their Lease. */}}
{{- define "vdbi.leases" -}}
{{- $own := (include "vdbi.values" . | fromJson).configuration | default dict -}}
{{- $default := printf "%s-%s" (include "vdbi.release" .root) .component -}}
{{- $name := default $default ($own.leaderElection | default dict).leaseName -}}
{{- $leases := list $name -}}
{{- $shards := int (coalesce $own.shards .root.Values.vaultDbInjector.configuration.shards 1) -}}
{{- if and (gt $shards 1) (ne .component "injector") -}}
{{- range $shard := until $shards -}}{{- $leases = append $leases (printf "%s-%d" $name $shard) -}}{{- end -}}
{{- $leases = append $leases (printf "%s-wanted" $name) -}}
{{- end -}}
{{- toJson $leases -}}
{{- end -}}

{{/* What no schema can say, all problems at once. */}}
{{- define "vdbi.check" -}}
{{- $shared := .Values.vaultDbInjector.configuration -}}
{{- $problems := list -}}
{{- if not $shared.vaultAddress -}}
{{- $problems = append $problems "vaultDbInjector.configuration.vaultAddress: it is required, such as https://openbao.example:8200" -}}
{{- end -}}
{{- if and $shared.useProjectedSA (not $shared.tokenRequestAudiences) -}}
{{- $problems = append $problems "vaultDbInjector.configuration.tokenRequestAudiences: useProjectedSA needs at least one" -}}
{{- end -}}
{{- $set := dict
      "mode" "leave it out, the chart starts each component itself"
      "certFile" "use certificates.mode" "keyFile" "use certificates.mode"
      "webhook.selfManaged" "use certificates.mode" "webhook.secretName" "use certificates.mode"
      "webhook.configurationName" "use certificates.mode" "webhook.dnsNames" "use certificates.mode"
      "adminAddress" "leave it out, the chart's probes ask port 8888"
      "metricsAddress" "leave it out, the chart's monitors ask port 8080"
      "admissionAddress" "leave it out, the chart's Service asks port 8443"
      "nri.nodeName" "leave it out, each node plugin learns its node"
      "leaderElection.leaseNamespace" "leave it out, the Leases are in the release's namespace" -}}
{{- $together := dict
      "release" "" "injectorLabel" "" "clusterId" "" "vaultSecretName" "" "vaultSecretPrefix" "" "useProjectedSA" "" "tokenRequestAudiences" "" -}}
{{- range $component := list "" "injector" "renewer" "revoker" "nri" -}}
{{- $given := $shared -}}{{- $where := "vaultDbInjector.configuration" -}}{{- $refused := $set -}}
{{- if $component -}}
{{- $given = (include "vdbi.values" (dict "root" $ "component" $component) | fromJson).configuration | default dict -}}
{{- $where = printf "%s.configuration" $component -}}
{{- $refused = merge (dict "nri" (printf "set it below %s, it is the same for all components" "nri")) $set -}}
{{- range $path, $_ := $together -}}
{{- $_ := set $refused $path "set it in vaultDbInjector.configuration, it is the same for all components" -}}
{{- end -}}
{{- else -}}
{{- $refused = merge (dict "leaderElection.leaseName" "set it in renewer.configuration, revoker.configuration or injector.configuration: each has a Lease of its own") $set -}}
{{- end -}}
{{- range $path, $advice := $refused -}}
{{- $node := $given -}}
{{- range $part := splitList "." $path -}}
{{- if kindIs "map" $node -}}{{- $node = get $node $part -}}{{- else -}}{{- $node = "" -}}{{- end -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $node)) (ne (toString $node) "") -}}
{{- $problems = append $problems (printf "%s.%s: %s" $where $path $advice) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $accounts := dict -}}
{{- range $component := include "vdbi.components" . | fromJsonArray -}}
{{- $account := include "vdbi.serviceAccount" (dict "root" $ "component" $component) -}}
{{- with get $accounts $account -}}
{{- $problems = append $problems (printf "%s.serviceAccountName: %s is that of %s: each component needs its own, since each has other rights" $component $account .) -}}
{{- end -}}
{{- $_ := set $accounts $account $component -}}
{{- end -}}
{{- with .Values.vaultCa -}}
{{- if and .secretName .configMapName -}}
{{- $problems = append $problems "vaultCa: set secretName or configMapName, not both" -}}
{{- end -}}
{{- if and (or .secretName .configMapName) $shared.vaultCaCert -}}
{{- $problems = append $problems "vaultDbInjector.configuration.vaultCaCert: vaultCa is set, which mounts the file and names it" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.vaultTokenAudience $shared.serviceAccountTokenFile -}}
{{- $problems = append $problems "vaultDbInjector.configuration.serviceAccountTokenFile: vaultTokenAudience is set, which mounts the token and names it" -}}
{{- end -}}
{{- range $where := list "image" "injector.image" "renewer.image" "revoker.image" "nri.image" -}}
{{- $image := $.Values -}}{{- range splitList "." $where -}}{{- $image = get $image . | default dict -}}{{- end -}}
{{- if hasSuffix "/vault-db-injector" (default "" $image.repository) -}}
{{- $problems = append $problems (printf "%s: %s is the Go product's image; leave it out, or name the one of vdbi" $where $image.repository) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{- if not (and .Values.certificates.secret.name .Values.certificates.secret.caBundle) -}}
{{- $problems = append $problems "certificates.secret: mode secret needs name (of a Secret with tls.crt and tls.key) and caBundle (the PEM of its authority)" -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n  %s" (join "\n  " $problems)) -}}
{{- end -}}
{{- end -}}
