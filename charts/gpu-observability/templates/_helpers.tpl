{{/* The start of every name: the release's, with the chart's where it is not in it. */}}
{{- define "gpu-observability.fullname" -}}
{{- $long := .Values.fullnameOverride -}}
{{- if not $long -}}
{{- $long = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- end -}}
{{- /* What a release may be called and a Service may not: with a dot, or 2nd. */}}
{{- $long = $long | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $long }}{{ $long = printf "r%s" $long }}{{ end -}}
{{- $long | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What a Service, a monitor or a DaemonSet finds pods by. Takes (list root component). */}}
{{- define "gpu-observability.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of every object. Takes (list root component) and, third, further labels. */}}
{{- define "gpu-observability.labels" -}}
{{- $root := index . 0 -}}
{{ include "gpu-observability.selectorLabels" . }}
app.kubernetes.io/part-of: darkroom
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $further := dict -}}
{{- if gt (len .) 2 }}{{ $further = index . 2 | default dict }}{{ end -}}
{{- with merge (deepCopy $further) $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The reference of an image: by digest where one is given. Takes (list image default-tag). */}}
{{- define "gpu-observability.image" -}}
{{- $image := index . 0 -}}
{{- $name := printf "%s/%s" $image.registry $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* The API group of the monitors. */}}
{{- define "gpu-observability.monitorGroup" -}}
{{- ternary "azmonitoring.coreos.com/v1" "monitoring.coreos.com/v1" (eq .Values.monitors.kind "azure") -}}
{{- end -}}

{{/* "true" when the exporter may read profiling counters, MIG instances and pod names. */}}
{{- define "gpu-observability.profiling" -}}
{{- if eq .Values.exporter.privileges "profiling" -}}true{{- end -}}
{{- end -}}

{{/* The exporter's counters: without those that its privileges do not allow. */}}
{{- define "gpu-observability.counters" -}}
{{- $profiling := include "gpu-observability.profiling" . -}}
{{- range (.Files.Get "files/dcgm-counters.csv" | splitList "\n") -}}
{{- if and . (or $profiling (not (hasPrefix "DCGM_FI_PROF_" .))) }}
{{ . }}
{{- end -}}
{{- end -}}
{{- range .Values.exporter.extraCounters }}
{{ . }}
{{- end -}}
{{- end -}}
