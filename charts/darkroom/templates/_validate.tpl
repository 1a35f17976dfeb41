{{/*
What a JSON schema cannot compare: values with each other. Everything that is wrong is collected, and
told at once, each line with the name of the value.
*/}}
{{- define "darkroom.validate" -}}
{{- $found := list -}}
{{- range $check := list "required" "leases" "secrets" "exposure" "catalog" "pools" "scaling" "dispatch" "api" "environment" "resources" -}}
{{- $found = concat $found (include (printf "darkroom.validate.%s" $check) $ | fromJsonArray) -}}
{{- end -}}
{{- if $found -}}
{{- fail (printf "\n\nThese values cannot work:\n  - %s\n" (join "\n  - " $found)) -}}
{{- end -}}
{{- end -}}

{{- define "darkroom.validate.required" -}}
{{- $found := list -}}
{{- $storage := or (empty .Values.backends.jobStoreUrl) (empty .Values.backends.imageStoreUrl) -}}
{{- if and (eq .Values.dispatch "serviceBus") (empty .Values.backends.queueUrl) (empty .Values.azure.serviceBus.namespace) -}}
{{- $found = append $found "azure.serviceBus.namespace: set it to the name of the Service Bus namespace (or set backends.queueUrl)" -}}
{{- end -}}
{{- if and $storage (empty .Values.azure.storage.account) -}}
{{- $found = append $found "azure.storage.account: set it to the name of the storage account (or set backends.jobStoreUrl and backends.imageStoreUrl)" -}}
{{- end -}}
{{- if .Values.identity.enabled -}}
{{- $tiers := list "api" "worker" -}}
{{- if .Values.webhooks.enabled }}{{ $tiers = append $tiers "webhooks" }}{{ end -}}
{{- if and (eq .Values.dispatch "serviceBus") .Values.keda.enabled (empty .Values.keda.connectionStringSecret.name) }}{{ $tiers = append $tiers "keda" }}{{ end -}}
{{- range $tiers -}}
{{- if not (get $.Values.identity.clientIds .) -}}
{{- $found = append $found (printf "identity.clientIds.%s: set it to the client id of that tier's managed identity (or set identity.enabled to false on a cluster without Workload ID)" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.leases" -}}
{{- $found := list -}}
{{- $lease := .Values.queue.leaseSeconds | float64 -}}
{{- if lt $lease (mulf 3 (.Values.queue.renewSeconds | float64)) -}}
{{- $found = append $found (printf "queue.leaseSeconds (%v) must be at least 3 x queue.renewSeconds (%v): one lost renewal must not lose a lease" .Values.queue.leaseSeconds .Values.queue.renewSeconds) -}}
{{- end -}}
{{- if and .Values.webhooks.enabled (lt $lease (addf 10 (.Values.webhooks.timeoutSeconds | float64))) -}}
{{- $found = append $found (printf "webhooks.timeoutSeconds (%v) and 10 more must be at most queue.leaseSeconds (%v): an attempt must end within its lease" .Values.webhooks.timeoutSeconds .Values.queue.leaseSeconds) -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.secrets" -}}
{{- $found := list -}}
{{- $kinds := splitList "," .Values.auth.mode -}}
{{- $wanted := dict -}}
{{- if has "api_keys" $kinds }}{{ $_ := set $wanted "auth.apiKeys" .Values.auth.apiKeys }}{{ end -}}
{{- if .Values.webhooks.enabled }}{{ $_ := set $wanted "webhooks.secrets" .Values.webhooks.secrets }}{{ end -}}
{{- range $name, $from := $wanted -}}
{{- if and $.Values.keyVault.enabled (not $from.keyVaultSecret) -}}
{{- $found = append $found (printf "%s.keyVaultSecret: set it to the name of the Key Vault secret that holds the file" $name) -}}
{{- else if and (not $.Values.keyVault.enabled) (not $from.secret) -}}
{{- $found = append $found (printf "%s.secret: set it to the name of the Kubernetes Secret that holds the file (or set keyVault.enabled)" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.keyVault.enabled -}}
{{- if not $wanted -}}
{{- $found = append $found "keyVault.enabled: nothing is read from it; set auth.mode to api_keys or webhooks.enabled to true" -}}
{{- end -}}
{{- if not .Values.keyVault.name }}{{ $found = append $found "keyVault.name: set it to the name of the Key Vault" }}{{ end -}}
{{- if not .Values.azure.tenantId }}{{ $found = append $found "azure.tenantId: the Key Vault driver needs the directory's id" }}{{ end -}}
{{- if not .Values.identity.enabled }}{{ $found = append $found "identity.enabled: the Key Vault is read by Workload ID; set it to true" }}{{ end -}}
{{- end -}}
{{- if has "entra" $kinds -}}
{{- if not .Values.auth.entra.issuers }}{{ $found = append $found "auth.entra.issuers: set at least one, https://login.microsoftonline.com/DIRECTORY/v2.0" }}{{ end -}}
{{- if not .Values.auth.entra.audiences }}{{ $found = append $found "auth.entra.audiences: set at least one, the API's application id" }}{{ end -}}
{{- end -}}
{{- if and (eq .Values.auth.mode "none") (not .Values.auth.allowAnonymous) -}}
{{- $found = append $found "auth.allowAnonymous: auth.mode none lets everybody in who reaches the service; set this to true if that is meant" -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.exposure" -}}
{{- $found := list -}}
{{- if and .Values.ingress.enabled .Values.gateway.enabled -}}
{{- $found = append $found "gateway.enabled: ingress.enabled is true too; choose one way in" -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}
{{- if not .Values.ingress.host }}{{ $found = append $found "ingress.host: set the name that callers use" }}{{ end -}}
{{- if not (or .Values.ingress.tls.secretName .Values.ingress.tls.gatewayCertificate) -}}
{{- $found = append $found "ingress.tls: set secretName or gatewayCertificate; credentials are never served by plain http" -}}
{{- end -}}
{{- if and .Values.ingress.tls.secretName .Values.ingress.tls.gatewayCertificate -}}
{{- $found = append $found "ingress.tls: secretName and gatewayCertificate are both set; choose one" -}}
{{- end -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- if not .Values.gateway.host }}{{ $found = append $found "gateway.host: set the name that callers use" }}{{ end -}}
{{- if and .Values.gateway.create (not .Values.gateway.tlsSecretName) }}{{ $found = append $found "gateway.tlsSecretName: set the Secret of the certificate" }}{{ end -}}
{{- if and (not .Values.gateway.create) (not .Values.gateway.existing.name) }}{{ $found = append $found "gateway.existing.name: set the Gateway to attach to (or set gateway.create to true)" }}{{ end -}}
{{- end -}}
{{- if and (or .Values.ingress.enabled .Values.gateway.enabled) (eq .Values.auth.mode "none") -}}
{{- $found = append $found "auth.mode: an API that is exposed must ask for credentials; none is for test clusters without ingress or gateway" -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.catalog" -}}
{{- $found := list -}}
{{- $models := list -}}
{{- range .Values.catalog.models -}}
{{- if has .name $models }}{{ $found = append $found (printf "catalog.models: the name %s stands twice" .name) }}{{ end -}}
{{- $models = append $models .name -}}
{{- end -}}
{{- if not (has .Values.catalog.default_model $models) -}}
{{- $found = append $found (printf "catalog.default_model: %s is not among catalog.models" .Values.catalog.default_model) -}}
{{- end -}}
{{- $pools := list -}}
{{- $served := list -}}
{{- range $pool := .Values.catalog.pools -}}
{{- if has .name $pools }}{{ $found = append $found (printf "catalog.pools: the name %s stands twice" .name) }}{{ end -}}
{{- $pools = append $pools .name -}}
{{- $served = concat $served .models -}}
{{- if eq .name "webhooks" }}{{ $found = append $found "catalog.pools: no pool can be called webhooks, the events' queue" }}{{ end -}}
{{- range .models -}}
{{- if not (has . $models) }}{{ $found = append $found (printf "catalog.pools: pool %s has the model %s, which is not among catalog.models" $pool.name .) }}{{ end -}}
{{- end -}}
{{- $bounds := $pool.replicas | default dict -}}
{{- if gt (dig "min" 0 $bounds | int) (dig "max" 1 $bounds | int) -}}
{{- $found = append $found (printf "catalog.pools: pool %s has replicas.min (%d) over replicas.max (%d)" $pool.name (dig "min" 0 $bounds | int) (dig "max" 1 $bounds | int)) -}}
{{- end -}}
{{- end -}}
{{- range $models -}}
{{- if not (has . $served) }}{{ $found = append $found (printf "catalog.models: no pool serves model %s" .) }}{{ end -}}
{{- end -}}
{{- range $name, $_ := .Values.pools -}}
{{- if not (has $name $pools) }}{{ $found = append $found (printf "pools.%s: there is no such pool in catalog.pools; it has %s" $name (join ", " $pools)) }}{{ end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.pools" -}}
{{- $found := list -}}
{{- range $entry := .Values.catalog.pools -}}
{{- $pool := include "darkroom.pool" (list $ $entry) | fromJson -}}
{{- $at := printf "pools.%s" $entry.name -}}
{{- $longest := $pool.longestJobSeconds | int -}}
{{- $least := add $longest ($pool.storingSeconds | int) | int -}}
{{- if lt ($pool.graceSeconds | int) $least -}}
{{- $found = append $found (printf "%s.graceSeconds (%d) must be at least the pool's max_gpu_seconds (%d) and storingSeconds (%d): a roll-out would throw a job away" $at ($pool.graceSeconds | int) $longest ($pool.storingSeconds | int)) -}}
{{- end -}}
{{- if gt ($pool.graceSeconds | int) 7200 -}}
{{- $found = append $found (printf "catalog.pools: pool %s has max_gpu_seconds (%d) that with storingSeconds (%d) is over 7200, the longest grace period of a worker" $entry.name $longest ($pool.storingSeconds | int)) -}}
{{- end -}}
{{- if gt ($pool.keda.messageCount | int) ($pool.concurrency | int) -}}
{{- $found = append $found (printf "%s.keda.messageCount (%d) must be at most the pool's concurrency (%d): the autoscaler would take busy replicas" $at ($pool.keda.messageCount | int) ($pool.concurrency | int)) -}}
{{- end -}}
{{- if and $pool.gpu.resource (eq ($entry.gpu | default "none") "none") -}}
{{- $found = append $found (printf "%s.gpu.resource (%s): the catalog says gpu: none for this pool" $at $pool.gpu.resource) -}}
{{- end -}}
{{- if and (eq $pool.device "cpu") $pool.gpuCount -}}
{{- $found = append $found (printf "%s.device: cpu, but the pool has a GPU (%s)" $at $pool.gpuResource) -}}
{{- end -}}
{{- if and (eq $pool.modelCache.type "claim") (not $pool.modelCache.claim.name) -}}
{{- $found = append $found (printf "%s.modelCache.claim.name: set the PersistentVolumeClaim that holds the models" $at) -}}
{{- end -}}
{{- $pulls := and (has $pool.modelCache.type (list "emptyDir" "ephemeral")) $pool.modelCache.pull.enabled -}}
{{- if and (or (eq $pool.modelCache.type "blob") (and $pulls (eq $pool.modelCache.pull.from "blob"))) (or (not $.Values.azure.storage.account) (not $.Values.azure.storage.modelsContainer)) -}}
{{- $found = append $found (printf "azure.storage.modelsContainer and azure.storage.account: set both; %s.modelCache takes the models from there" $at) -}}
{{- end -}}
{{- if and $pool.priority (not (hasKey $.Values.priorityClasses.classes $pool.priority)) -}}
{{- $found = append $found (printf "%s.priority: %s is not among priorityClasses.classes" $at $pool.priority) -}}
{{- end -}}
{{- if and (eq ($pool.rollingUpdate.maxSurge | toString | trimSuffix "%") "0") (eq ($pool.rollingUpdate.maxUnavailable | toString | trimSuffix "%") "0") -}}
{{- $found = append $found (printf "%s.rollingUpdate: maxSurge and maxUnavailable are both 0; nothing could ever be replaced" $at) -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.scaling" -}}
{{- $found := list -}}
{{- $scaled := and (eq .Values.dispatch "serviceBus") .Values.keda.enabled -}}
{{- $deployed := false -}}
{{- range $entry := .Values.catalog.pools -}}
{{- $pool := include "darkroom.pool" (list $ $entry) | fromJson -}}
{{- $at := printf "pools.%s" $entry.name -}}
{{- if eq $pool.kind "Deployment" }}{{ $deployed = true }}{{ end -}}
{{- if and $scaled (gt ($pool.keda.fallback.replicas | int) ($pool.maxReplicas | int)) -}}
{{- $found = append $found (printf "%s.keda.fallback.replicas (%d) must be at most the pool's replicas.max (%d)" $at ($pool.keda.fallback.replicas | int) ($pool.maxReplicas | int)) -}}
{{- end -}}
{{- if and $scaled (gt ($pool.keda.scaleDownSeconds | int) 0) (lt ($pool.keda.scaleDownSeconds | int) (min 3600 ($pool.longestJobSeconds | int) | int)) -}}
{{- $found = append $found (printf "%s.keda.scaleDownSeconds (%d) must be at least the pool's max_gpu_seconds (%d), or 3600" $at ($pool.keda.scaleDownSeconds | int) ($pool.longestJobSeconds | int)) -}}
{{- end -}}
{{- if and (eq $pool.kind "ScaledJob") (not $scaled) -}}
{{- $found = append $found (printf "%s.kind: ScaledJob needs dispatch serviceBus and keda.enabled" $at) -}}
{{- end -}}
{{- end -}}
{{- if and $scaled (not (hasPrefix "servicebus://" (include "darkroom.queueUrl" .))) -}}
{{- $found = append $found "keda.enabled: only a queue of servicebus:// can be scaled by; set it to false with this backends.queueUrl" -}}
{{- end -}}
{{- if and $scaled $deployed .Values.keda.prometheus.enabled (not .Values.keda.prometheus.serverAddress) -}}
{{- $found = append $found "keda.prometheus.serverAddress: set the Prometheus that has the workers' metrics (or set keda.prometheus.enabled to false: then a last busy replica may be asked to leave, and finishes within its grace period)" -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{- define "darkroom.validate.dispatch" -}}
{{- $found := list -}}
{{- $kubernetes := eq .Values.dispatch "kubernetes" -}}
{{- if and $kubernetes .Values.webhooks.enabled -}}
{{- $found = append $found "webhooks.enabled: Kubernetes dispatch has no queue for events; set it to false or dispatch to serviceBus" -}}
{{- end -}}
{{- if and $kubernetes .Values.backends.queueUrl (not (hasPrefix "kubernetes://" .Values.backends.queueUrl)) -}}
{{- $found = append $found "backends.queueUrl: dispatch is kubernetes; leave this out" -}}
{{- end -}}
{{- if and (not $kubernetes) (hasPrefix "kubernetes://" .Values.backends.queueUrl) -}}
{{- $found = append $found "dispatch: backends.queueUrl is kubernetes://; set dispatch to kubernetes" -}}
{{- end -}}
{{- $local := false -}}
{{- range $url := list .Values.backends.queueUrl .Values.backends.jobStoreUrl .Values.backends.imageStoreUrl -}}
{{- if regexMatch "^(sqlite|file)://" $url }}{{ $local = true }}{{ end -}}
{{- if regexMatch "^memory://" $url }}{{ $found = append $found "backends: memory:// is of one process; the API and the workers would never meet" }}{{ end -}}
{{- end -}}
{{- if and $local (not .Values.sharedVolume.enabled) -}}
{{- $found = append $found "sharedVolume.enabled: backends names files (sqlite:// or file://), which the pods must share; set it to true" -}}
{{- end -}}
{{- if and .Values.sharedVolume.enabled (ne (include "darkroom.workerNamespace" .) .Release.Namespace) -}}
{{- $found = append $found "workers.namespace: a shared volume cannot be in two namespaces; leave this empty with sharedVolume.enabled" -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end -}}

{{- define "darkroom.validate.api" -}}
{{- $found := list -}}
{{- $scaling := .Values.api.autoscaling -}}
{{- if and $scaling.enabled (gt ($scaling.minReplicas | int) ($scaling.maxReplicas | int)) -}}
{{- $found = append $found (printf "api.autoscaling.minReplicas (%d) is over api.autoscaling.maxReplicas (%d)" ($scaling.minReplicas | int) ($scaling.maxReplicas | int)) -}}
{{- end -}}
{{- if eq (.Values.api.maxSurge | toString | trimSuffix "%") "0" -}}
{{- $found = append $found "api.maxSurge: must not be 0; the roll-out takes none away before another is ready" -}}
{{- end -}}
{{- if and $scaling.enabled (not (dig "requests" "cpu" "" .Values.api.resources)) -}}
{{- $found = append $found "api.resources.requests.cpu: the autoscaler measures against it; set it or api.autoscaling.enabled to false" -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* A variable that stands twice in a container is refused by the API server, without a good reason. */}}
{{- define "darkroom.validate.environment" -}}
{{- $found := list -}}
{{- $told := dict "api.extraEnv" (include "darkroom.apiEnv" (dict "root" . "sweeps" false)) -}}
{{- if .Values.webhooks.enabled }}{{ $_ := set $told "webhooks.extraEnv" (include "darkroom.webhooksEnv" .) }}{{ end -}}
{{- range $entry := .Values.catalog.pools -}}
{{- $pool := include "darkroom.pool" (list $ $entry) | fromJson -}}
{{- $pod := include "darkroom.workerPod" (dict "root" $ "pool" $pool "mode" "job") | fromYaml -}}
{{- $_ := set $told (printf "pools.%s.extraEnv" $entry.name) (toYaml (first $pod.spec.containers).env) -}}
{{- end -}}
{{- range $value, $text := $told -}}
{{- $names := list -}}
{{- range fromYamlArray $text -}}
{{- if has .name $names -}}
{{- $found = append $found (printf "%s: %s is set by the chart already, by another value" $value .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* A quantity as a number: thousandths of a core, or bytes. */}}
{{- define "darkroom.amount" -}}
{{- $text := . | toString -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- mul $number (get (dict "" 1000 "m" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit | int64) -}}
{{- end -}}

{{/* A container that asks for more than it may use is refused by the API server. */}}
{{- define "darkroom.validate.resources" -}}
{{- $found := list -}}
{{- $tiers := dict "api" .Values.api.resources "sweeper" .Values.sweeper.resources "webhooks" .Values.webhooks.resources "tests" .Values.tests.resources -}}
{{- range $entry := .Values.catalog.pools -}}
{{- $pool := include "darkroom.pool" (list $ $entry) | fromJson -}}
{{- $_ := set $tiers (printf "pools.%s" $entry.name) $pool.resources -}}
{{- $_ := set $tiers (printf "pools.%s.modelCache.pull" $entry.name) $pool.modelCache.pull.resources -}}
{{- end -}}
{{- range $at, $resources := $tiers -}}
{{- range $name, $most := $resources.limits | default dict -}}
{{- $asked := get ($resources.requests | default dict) $name -}}
{{- if and $asked (gt (include "darkroom.amount" $asked | int64) (include "darkroom.amount" $most | int64)) -}}
{{- $found = append $found (printf "%s.resources.limits.%s (%s) must be at least requests.%s (%s)" $at $name ($most | toString) $name ($asked | toString)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}
