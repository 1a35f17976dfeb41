{{/* One plain variable. Takes (list name value). */}}
{{- define "darkroom.variable" -}}
- name: {{ index . 0 }}
  value: {{ index . 1 | toString | quote }}
{{- end -}}

{{/* A number as it is written: no exponent, no digits that nobody wrote. */}}
{{- define "darkroom.number" -}}
{{- . | toJson -}}
{{- end -}}

{{- define "darkroom.queueUrl" -}}
{{- if .Values.backends.queueUrl -}}
{{- .Values.backends.queueUrl -}}
{{- else if eq .Values.dispatch "kubernetes" -}}
{{- printf "kubernetes://%s/%s" (include "darkroom.workerNamespace" .) (include "darkroom.fullname" .) -}}
{{- else -}}
{{- printf "servicebus://%s.servicebus.windows.net" .Values.azure.serviceBus.namespace -}}
{{- end -}}
{{- end -}}

{{- define "darkroom.jobStoreUrl" -}}
{{- .Values.backends.jobStoreUrl | default (printf "aztables://%s" .Values.azure.storage.account) -}}
{{- end -}}

{{- define "darkroom.imageStoreUrl" -}}
{{- .Values.backends.imageStoreUrl | default (printf "azblob://%s/%s" .Values.azure.storage.account .Values.azure.storage.imagesContainer) -}}
{{- end -}}

{{/* What every process must be told alike: backends, catalog, leases. */}}
{{- define "darkroom.sharedEnv" -}}
{{ include "darkroom.variable" (list "DARKROOM_QUEUE_URL" (include "darkroom.queueUrl" .)) }}
{{ include "darkroom.variable" (list "DARKROOM_JOBSTORE_URL" (include "darkroom.jobStoreUrl" .)) }}
{{ include "darkroom.variable" (list "DARKROOM_IMAGESTORE_URL" (include "darkroom.imageStoreUrl" .)) }}
{{ include "darkroom.variable" (list "DARKROOM_CATALOG" "/etc/darkroom/catalog.yaml") }}
{{ include "darkroom.variable" (list "DARKROOM_REGION" .Values.region) }}
{{ include "darkroom.variable" (list "DARKROOM_LEASE_SECONDS" (include "darkroom.number" .Values.queue.leaseSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_RENEW_SECONDS" (include "darkroom.number" .Values.queue.renewSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_MAX_DELIVERY_COUNT" (include "darkroom.number" .Values.queue.maxDeliveryCount)) }}
{{ include "darkroom.variable" (list "DARKROOM_LOG_LEVEL" .Values.log.level) }}
{{ include "darkroom.variable" (list "DARKROOM_LOG_FORMAT" .Values.log.format) }}
{{- end -}}

{{/* The address that callers use, where one is known. */}}
{{- define "darkroom.publicUrl" -}}
{{- if .Values.api.publicUrl -}}
{{- .Values.api.publicUrl -}}
{{- else if and .Values.ingress.enabled .Values.ingress.host -}}
{{- printf "https://%s" .Values.ingress.host -}}
{{- else if and .Values.gateway.enabled .Values.gateway.host -}}
{{- printf "https://%s" .Values.gateway.host -}}
{{- end -}}
{{- end -}}

{{/* An API process: one that serves, or the sweeper. Takes (dict root sweeps). */}}
{{- define "darkroom.apiEnv" -}}
{{- $root := .root -}}
{{- $api := $root.Values.api -}}
{{- $auth := $root.Values.auth -}}
{{ include "darkroom.sharedEnv" $root }}
{{ include "darkroom.variable" (list "DARKROOM_API_HOST" "0.0.0.0") }}
{{ include "darkroom.variable" (list "DARKROOM_API_PORT" "8080") }}
{{ include "darkroom.variable" (list "DARKROOM_API_METRICS_HOST" "0.0.0.0") }}
{{ include "darkroom.variable" (list "DARKROOM_API_METRICS_PORT" "9090") }}
{{- /* The gateway leads to the other port, whose /metrics would be everybody's. */}}
{{ include "darkroom.variable" (list "DARKROOM_API_METRICS_NEED_OPERATOR" "true") }}
{{ include "darkroom.variable" (list "DARKROOM_API_AUTH" $auth.mode) }}
{{- if has "api_keys" (splitList "," $auth.mode) }}
{{ include "darkroom.variable" (list "DARKROOM_API_KEYS_FILE" "/mnt/secrets/api-keys.yaml") }}
{{- end }}
{{- if has "entra" (splitList "," $auth.mode) }}
{{ include "darkroom.variable" (list "DARKROOM_API_ENTRA_ISSUERS" (join "," $auth.entra.issuers)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_ENTRA_AUDIENCES" (join "," $auth.entra.audiences)) }}
{{- end }}
{{- if eq $auth.mode "none" }}
{{ include "darkroom.variable" (list "DARKROOM_API_ALLOW_ANONYMOUS_REMOTE" ($auth.allowAnonymous | toString)) }}
{{- end }}
{{- with include "darkroom.publicUrl" $root }}
{{ include "darkroom.variable" (list "DARKROOM_API_PUBLIC_URL" .) }}
{{- end }}
{{ include "darkroom.variable" (list "DARKROOM_API_SWEEP_SECONDS" (ternary (include "darkroom.number" $root.Values.sweeper.periodSeconds) "0" .sweeps)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_UNSENT_SECONDS" (include "darkroom.number" $root.Values.sweeper.unsentSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_SYNC_WAIT_SECONDS" (include "darkroom.number" $api.syncWaitSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_SHUTDOWN_SECONDS" (include "darkroom.number" $api.shutdownSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_MAX_POOL_JOBS" (include "darkroom.number" $api.limits.maxPoolJobs)) }}
{{- with $api.limits.requestsPerMinute }}
{{ include "darkroom.variable" (list "DARKROOM_API_REQUESTS_PER_MINUTE" (include "darkroom.number" .)) }}
{{- end }}
{{- with $api.limits.maxQueuedJobs }}
{{ include "darkroom.variable" (list "DARKROOM_API_MAX_QUEUED_JOBS" (include "darkroom.number" .)) }}
{{- end }}
{{- with $api.limits.maxQueuedGpuSeconds }}
{{ include "darkroom.variable" (list "DARKROOM_API_MAX_QUEUED_GPU_SECONDS" (include "darkroom.number" .)) }}
{{- end }}
{{- with $api.limits.url }}
{{ include "darkroom.variable" (list "DARKROOM_API_LIMITS_URL" .) }}
{{- end }}
{{- if $root.Values.webhooks.enabled }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_SECRETS_FILE" "/mnt/secrets/webhook-secrets.yaml") }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_PORTS" (join "," $root.Values.webhooks.ports)) }}
{{- end }}
{{- with $api.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The sender of webhooks. It needs the API's public address for the links in events. */}}
{{- define "darkroom.webhooksEnv" -}}
{{- $webhooks := .Values.webhooks -}}
{{ include "darkroom.sharedEnv" . }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_SECRETS_FILE" "/mnt/secrets/webhook-secrets.yaml") }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_PORTS" (join "," $webhooks.ports)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_TIMEOUT_SECONDS" (include "darkroom.number" $webhooks.timeoutSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_CONCURRENCY" (include "darkroom.number" $webhooks.concurrency)) }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_METRICS_HOST" "0.0.0.0") }}
{{ include "darkroom.variable" (list "DARKROOM_API_WEBHOOK_METRICS_PORT" "9090") }}
{{- with include "darkroom.publicUrl" . }}
{{ include "darkroom.variable" (list "DARKROOM_API_PUBLIC_URL" .) }}
{{- end }}
{{- with $webhooks.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A worker of one pool. Takes (dict root pool mode). */}}
{{- define "darkroom.workerEnv" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{ include "darkroom.sharedEnv" $root }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_POOL" $pool.name) }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_ENGINE" $pool.engine) }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_DEVICE" $pool.device) }}
{{- /* A pod of one job loads the model of that job; another would be loaded for nothing. */}}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_WARM_MODELS" (ternary "" $pool.warmModels (eq .mode "job"))) }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_GRACE_SECONDS" (include "darkroom.number" $pool.graceSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_POLL_SECONDS" (include "darkroom.number" $pool.pollSeconds)) }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_DELETION_COST" (and (eq .mode "deployment") $root.Values.workers.deletionCost | toString)) }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_METRICS_HOST" "0.0.0.0") }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_METRICS_PORT" "9090") }}
{{- if eq .mode "scaledJob" }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_IDLE_SECONDS" (include "darkroom.number" $pool.scaledJob.idleSeconds)) }}
{{- end }}
{{- with $pool.scheduledEventsUrl }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_SCHEDULED_EVENTS_URL" .) }}
{{- end }}
{{- with $root.Values.image.worker.digest }}
{{ include "darkroom.variable" (list "DARKROOM_WORKER_IMAGE_DIGEST" .) }}
{{- end }}
{{- end -}}
