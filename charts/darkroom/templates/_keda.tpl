{{/*
Numbers of a pool's autoscaling that follow from how long its jobs and its models' loading take, as
JSON. A pool's own `keda` values, where given, are taken instead.
  scaleDownSeconds   a replica that was needed a moment ago is kept for the longest job and two loads
  scaleDownPeriod    one replica or a quarter of them leaves in the time of a job or a load
  scaleUpPeriod      the fleet at most doubles before those that came last have loaded their models
  cooldownSeconds    the last replica stays for two loads
Takes (list root pool).
*/}}
{{- define "darkroom.pace" -}}
{{- $pool := index . 1 -}}
{{- $given := $pool.keda -}}
{{- $load := $pool.loadSeconds | int -}}
{{- $job := $pool.longestJobSeconds | int -}}
{{- dict
  "scaleDownSeconds" ($given.scaleDownSeconds | int | default (min 3600 (max 300 (add $job (mul 2 $load)))))
  "scaleDownPeriod" (min 1800 (max 60 $load (min $job 600)))
  "scaleUpPeriod" (min 1800 (max 15 $load))
  "cooldownSeconds" ($given.cooldownSeconds | int | default (max 300 (mul 2 $load)))
  | toJson -}}
{{- end -}}

{{/* One replica for each `concurrency` messages that wait. Takes (dict root pool). */}}
{{- define "darkroom.backlogTrigger" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
- type: azure-servicebus
  name: backlog
  {{- if eq $pool.kind "Deployment" }}
  # KEDA's own default, said aloud: some versions refuse a fallback without. A ScaledJob has none.
  metricType: AverageValue
  {{- end }}
  metadata:
    queueName: {{ $pool.name }}
    {{- if not $root.Values.keda.connectionStringSecret.name }}
    namespace: {{ $root.Values.azure.serviceBus.namespace }}
    {{- end }}
    messageCount: {{ $pool.keda.messageCount | int | default ($pool.concurrency | int) | quote }}
    activationMessageCount: "0"
  authenticationRef:
    name: {{ include "darkroom.named" (list $root "keda") }}
{{- end -}}

{{/*
One replica for each that holds a job. The HPA takes the larger answer of its triggers, never their
sum, so that it does not matter whether the broker counts locked messages as active.
Takes (dict root pool).
*/}}
{{- define "darkroom.inFlightTrigger" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{- $prometheus := $root.Values.keda.prometheus -}}
- type: prometheus
  name: in-flight
  metricType: AverageValue
  metadata:
    serverAddress: {{ $prometheus.serverAddress | quote }}
    query: sum(clamp_max(darkroom_jobs_in_flight{namespace="{{ include "darkroom.workerNamespace" $root }}",pool="{{ $pool.name }}"}, 1))
    threshold: "1"
    activationThreshold: "0"
    ignoreNullValues: "true"
  {{- if $prometheus.azureAuthentication }}
  authenticationRef:
    name: {{ include "darkroom.named" (list $root "keda-prometheus") }}
  {{- end }}
{{- end -}}
