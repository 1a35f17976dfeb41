{{/* A quantity times a whole number: "24Gi" x 4 is "96Gi". Takes (list quantity times). */}}
{{- define "darkroom.times" -}}
{{- $text := index . 0 | toString -}}
{{- $number := regexFind "^[0-9]+" $text -}}
{{- printf "%d%s" (mul ($number | int64) (index . 1 | int64)) (trimPrefix $number $text) -}}
{{- end -}}

{{/* What one pod of a pool asks for, GPU included, as JSON. */}}
{{- define "darkroom.podRequests" -}}
{{- $requests := deepCopy .resources.requests -}}
{{- if .gpuCount -}}
{{- $_ := set $requests .gpuResource (.gpuCount | int | toString) -}}
{{- end -}}
{{- $requests | toJson -}}
{{- end -}}

{{/*
The flavours of a pool, best first, as a JSON list of {name, labels}. A spot pool that may fall back
has two.
*/}}
{{- define "darkroom.flavors" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $labels := $pool.nodeSelector | default dict -}}
{{- $spot := mergeOverwrite (deepCopy $labels) (dict "kubernetes.azure.com/scalesetpriority" "spot") -}}
{{- $flavors := list -}}
{{- if $pool.spot -}}
{{- $flavors = append $flavors (dict "name" (include "darkroom.clusterNamed" (list $root (printf "%s-spot" $pool.name))) "labels" $spot) -}}
{{- end -}}
{{- if or (not $pool.spot) $pool.onDemandFallback -}}
{{- $flavors = append $flavors (dict "name" (include "darkroom.clusterNamed" (list $root $pool.name)) "labels" $labels) -}}
{{- end -}}
{{- $flavors | toJson -}}
{{- end -}}
