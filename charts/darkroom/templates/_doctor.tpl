{{/*
What the cluster should have by this release, as a JSON list of the names that `darkroom doctor
--expect` knows: the doctor looks for these, and its Roles allow no more.
*/}}
{{- define "darkroom.expectations" -}}
{{- $expected := list -}}
{{- if .Values.tests.rbac -}}
{{- $scales := false -}}
{{- $gpus := false -}}
{{- range $entry := .Values.catalog.pools -}}
{{- $pool := include "darkroom.pool" (list $ $entry) | fromJson -}}
{{- if $pool.gpuCount -}}{{- $gpus = true -}}{{- end -}}
{{- if eq $pool.kind "Deployment" -}}{{- $scales = true -}}{{- end -}}
{{- end -}}
{{- if eq .Values.dispatch "kubernetes" -}}
{{- $expected = append $expected "templates" -}}
{{- if .Values.kueue.enabled -}}{{- $expected = append $expected "kueue" -}}{{- end -}}
{{- else if and .Values.keda.enabled $scales -}}
{{- $expected = append $expected "keda" -}}
{{- end -}}
{{- if .Values.keyVault.enabled -}}{{- $expected = append $expected "secrets" -}}{{- end -}}
{{- if $gpus -}}{{- $expected = append $expected "gpu" -}}{{- end -}}
{{- end -}}
{{- $expected | toJson -}}
{{- end -}}

{{/* The doctor's arguments: the demo job may take the test's time but two minutes. */}}
{{- define "darkroom.doctorArguments" -}}
{{- $arguments := concat .Values.tests.arguments (list
  "--namespace" .Release.Namespace
  "--workers-namespace" (include "darkroom.workerNamespace" .)
  "--wait" (max 30 (sub (.Values.tests.timeoutSeconds | int) 120) | toString)) -}}
{{- range include "darkroom.expectations" . | fromJsonArray -}}
{{- $arguments = concat $arguments (list "--expect" .) -}}
{{- end -}}
{{- toYaml $arguments -}}
{{- end -}}
