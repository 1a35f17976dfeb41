{{/* A quantity times a whole number: "24Gi" x 4 is "96Gi". Takes (list quantity times). */}}
{{- define "darkroom.times" -}}
{{- $text := index . 0 | toString -}}
{{- $number := regexFind "^[0-9]+" $text -}}
{{- printf "%d%s" (mul ($number | int64) (index . 1 | int64)) (trimPrefix $number $text) -}}
{{- end -}}

{{/*
What one pod of a pool asks for, GPU included, as JSON: of each resource what its worker or the
container before it asks for, whichever is more. A limit without a request is one, as Kueue counts.
*/}}
{{- define "darkroom.podRequests" -}}
{{- $requests := merge (deepCopy .resources.requests) (.resources.limits | default dict) -}}
{{- if and (has .modelCache.type (list "emptyDir" "ephemeral")) .modelCache.pull.enabled -}}
{{- $pull := .modelCache.pull.resources -}}
{{- range $name, $asked := merge (deepCopy $pull.requests) ($pull.limits | default dict) -}}
{{- if gt (include "darkroom.amount" $asked | int64) (include "darkroom.amount" (get $requests $name | default "0") | int64) -}}
{{- $_ := set $requests $name $asked -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .gpuCount -}}
{{- $_ := set $requests .gpuResource (.gpuCount | int | toString) -}}
{{- end -}}
{{- $requests | toJson -}}
{{- end -}}

{{/*
The nodes of a pool's flavour, as JSON. One flavour: Kueue takes a second one when the quota of the
first is used up, not when its nodes cannot be had, so that a job would wait for ever for a spot node
that does not come. Spot first is the pods' own preference. Takes pool.
*/}}
{{- define "darkroom.flavorLabels" -}}
{{- $labels := deepCopy (.nodeSelector | default dict) -}}
{{- if and .spot (not .onDemandFallback) -}}
{{- $_ := set $labels "kubernetes.azure.com/scalesetpriority" "spot" -}}
{{- end -}}
{{- $labels | toJson -}}
{{- end -}}
