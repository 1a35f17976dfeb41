{{/*
A name of at most 63 characters that stays distinct when it is cut: "RELEASE-suffix".
Takes (list root suffix).
*/}}
{{- define "darkroom.named" -}}
{{- $root := index . 0 -}}
{{- $suffix := index . 1 -}}
{{- $base := include "darkroom.fullname" $root -}}
{{- $long := ternary $base (printf "%s-%s" $base $suffix) (empty $suffix) -}}
{{- if gt (len $long) 63 -}}
{{- printf "%s-%s" (trunc 54 $long | trimSuffix "-" | trimSuffix ".") (sha256sum $long | trunc 8) -}}
{{- else -}}
{{- $long -}}
{{- end -}}
{{- end -}}

{{/*
The start of every name: the release's, with the chart's where it is not in it. At most 40 characters,
so that "START-POOL" is a name too: the adapter of Kubernetes dispatch puts it together by itself.
*/}}
{{- define "darkroom.fullname" -}}
{{- $long := .Values.fullnameOverride -}}
{{- if not $long -}}
{{- $long = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- end -}}
{{- $long = $long | replace "." "-" -}}
{{- /* A release may be called 2nd, a Service may not. */}}
{{- if regexMatch "^[0-9]" $long }}{{ $long = printf "r%s" $long }}{{ end -}}
{{- if gt (len $long) 40 -}}
{{- printf "%s-%s" (trunc 31 $long | trimSuffix "-") (sha256sum $long | trunc 8) -}}
{{- else -}}
{{- $long -}}
{{- end -}}
{{- end -}}

{{/* A name that is the same in the whole cluster: the release's namespace is part of it. */}}
{{- define "darkroom.clusterNamed" -}}
{{- $root := index . 0 -}}
{{- $long := printf "%s-%s-%s" $root.Release.Namespace (include "darkroom.fullname" $root) (index . 1) -}}
{{- /* A PriorityClass called system-… may be Kubernetes' own alone. */}}
{{- if hasPrefix "system-" $long }}{{ $long = printf "in-%s" $long }}{{ end -}}
{{- if gt (len $long) 63 -}}
{{- printf "%s-%s" (trunc 54 $long | trimSuffix "-" | trimSuffix ".") (sha256sum $long | trunc 8) -}}
{{- else -}}
{{- $long -}}
{{- end -}}
{{- end -}}

{{/* The namespace of the GPU tier. */}}
{{- define "darkroom.workerNamespace" -}}
{{- .Values.workers.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* The namespaces that this release has pods in, as a JSON list. */}}
{{- define "darkroom.namespaces" -}}
{{- list .Release.Namespace (include "darkroom.workerNamespace" .) | uniq | toJson -}}
{{- end -}}

{{/* What a Service, a policy or a Deployment finds pods by. Takes (list root component). */}}
{{- define "darkroom.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: darkroom
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of every object. Takes (list root component). */}}
{{- define "darkroom.labels" -}}
{{- $root := index . 0 -}}
{{ include "darkroom.selectorLabels" . }}
app.kubernetes.io/part-of: darkroom
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The ServiceAccount of a tier. Takes (list root tier). */}}
{{- define "darkroom.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $given := get $root.Values.serviceAccounts.names (index . 1) -}}
{{- $given | default (include "darkroom.named" .) -}}
{{- end -}}

{{/* Labels that decide which pod is whose must fit 63 characters; a release name always does. */}}
{{- define "darkroom.catalogName" -}}
{{- include "darkroom.named" (list . "catalog") -}}
{{- end -}}
