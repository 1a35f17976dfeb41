{{/* The catalog's file, the same for both tiers. */}}
{{- define "darkroom.catalogFile" -}}
{{- toYaml .Values.catalog -}}
{{- end -}}

{{/*
What of the catalog a worker of a pool works by: a change of anything else does not replace a busy
worker. Bounds of the replicas are the autoscaler's. Takes (list root poolEntry).
*/}}
{{- define "darkroom.poolChecksum" -}}
{{- $root := index . 0 -}}
{{- $entry := omit (index . 1) "replicas" -}}
{{- $models := list -}}
{{- range $root.Values.catalog.models -}}
{{- if has .name $entry.models -}}
{{- $models = append $models . -}}
{{- end -}}
{{- end -}}
{{- dict "pool" $entry "models" $models | toJson | sha256sum -}}
{{- end -}}

{{/*
A pool, as JSON: `workers` with the pool's own values from `pools` over it, its entry in the catalog,
and what follows from them. Takes (list root poolEntry).
*/}}
{{- define "darkroom.pool" -}}
{{- $root := index . 0 -}}
{{- $entry := index . 1 -}}
{{- $own := get $root.Values.pools $entry.name | default dict -}}
{{- $pool := mergeOverwrite (deepCopy (omit $root.Values.workers "namespace")) (deepCopy $own) -}}
{{- $load := 0 -}}
{{- range $root.Values.catalog.models -}}
{{- if has .name $entry.models -}}
{{- $load = max $load (ceil (dig "load_seconds" 30 . | float64) | int) -}}
{{- end -}}
{{- end -}}
{{- $longest := ceil ($entry.max_gpu_seconds | float64) | int -}}
{{- $gpu := $entry.gpu | default "none" -}}
{{- $resource := $pool.gpu.resource -}}
{{- if and (not $resource) (ne $gpu "none") -}}
{{- $resource = ternary (printf "nvidia.com/%s" $gpu) "nvidia.com/gpu" (hasPrefix "mig-" $gpu) -}}
{{- end -}}
{{- $grace := ceil ($pool.graceSeconds | float64) | int | default (add $longest ($pool.storingSeconds | int)) | int -}}
{{- $replicas := $entry.replicas | default dict -}}
{{- $_ := set $pool "name" $entry.name -}}
{{- $_ := set $pool "entry" $entry -}}
{{- $_ := set $pool "spot" ($entry.spot | default false) -}}
{{- $_ := set $pool "gpuResource" $resource -}}
{{- $_ := set $pool "gpuCount" (ternary 1 0 (ne $resource "")) -}}
{{- $_ := set $pool "loadSeconds" $load -}}
{{- $_ := set $pool "longestJobSeconds" $longest -}}
{{- $_ := set $pool "graceSeconds" $grace -}}
{{- $_ := set $pool "terminationGracePeriodSeconds" (add $grace ($pool.terminationMarginSeconds | int)) -}}
{{- $_ := set $pool "minReplicas" (dig "min" 0 $replicas | int) -}}
{{- $_ := set $pool "maxReplicas" (dig "max" 1 $replicas | int) -}}
{{- $_ := set $pool "concurrency" ($entry.concurrency | default 1 | int) -}}
{{- $_ := set $pool "component" (printf "worker-%s" $entry.name) -}}
{{- $_ := set $pool "checksum" (include "darkroom.poolChecksum" (list $root $entry)) -}}
{{- $pool | toJson -}}
{{- end -}}
