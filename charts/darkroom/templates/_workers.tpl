{{/*
The pod of a worker: metadata and spec, for a Deployment, a ScaledJob or the PodTemplate of
Kubernetes dispatch. Takes (dict root pool mode), mode one of deployment, scaledJob, job.
*/}}
{{- define "darkroom.workerPod" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{- $pulls := and (has $pool.modelCache.type (list "emptyDir" "ephemeral")) $pool.modelCache.pull.enabled -}}
metadata:
  labels:
    {{- include "darkroom.podLabels" (dict "root" $root "component" $pool.component "tier" "worker" "labels" $pool.podLabels) | nindent 4 }}
    darkroom/tier: worker
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    checksum/catalog: {{ $pool.checksum }}
    {{- with $pool.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "darkroom.podBasics" (dict "root" $root "tier" "worker" "token" (include "darkroom.workerTalksToCluster" $root | eq "true")) | nindent 2 }}
  terminationGracePeriodSeconds: {{ $pool.terminationGracePeriodSeconds }}
  {{- if ne .mode "deployment" }}
  restartPolicy: Never
  {{- end }}
  {{- with $pool.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with include "darkroom.priorityClass" (list $root $pool) }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with include "darkroom.gpuPlacement" (list $root $pool) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if eq .mode "deployment" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "darkroom.selectorLabels" (list $root $pool.component) | nindent 10 }}
  {{- end }}
  {{- if $pulls }}
  initContainers:
    - name: models
      image: {{ include "darkroom.image" (list $root "worker") }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        - models
        - pull
        {{- range $pool.entry.models }}
        - {{ . | quote }}
        {{- end }}
        - --cache
        - /cache/models
        - --from
        - {{ include "darkroom.modelSource" (list $root $pool) }}
      env:
        {{- include "darkroom.variable" (list "DARKROOM_CATALOG" "/etc/darkroom/catalog.yaml") | nindent 8 }}
        {{- with $pool.modelCache.pull.hubTokenSecret }}
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef:
              name: {{ . }}
              key: token
        {{- end }}
      resources:
        {{- toYaml $pool.modelCache.pull.resources | nindent 8 }}
      securityContext:
        {{- include "darkroom.containerSecurityContext" $root | nindent 8 }}
      volumeMounts:
        {{- include "darkroom.baseMounts" $root | nindent 8 }}
        - name: cache
          mountPath: /cache
  {{- end }}
  containers:
    - name: worker
      image: {{ include "darkroom.image" (list $root "worker") }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [worker]
      env:
        {{- include "darkroom.workerEnv" . | nindent 8 }}
        {{- if ne $pool.modelCache.type "image" }}
        {{- include "darkroom.variable" (list "DARKROOM_MODELS_DIR" "/cache/models") | nindent 8 }}
        {{- end }}
        - name: DARKROOM_WORKER_POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: DARKROOM_WORKER_POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        {{- if eq .mode "job" }}
        - name: DARKROOM_WORKER_JOB_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/job-name']
        {{- end }}
        {{- with $pool.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: metrics
          containerPort: 9090
          protocol: TCP
      startupProbe:
        {{- $failures := div (add (mul 3 $pool.loadSeconds) ($pool.startupSeconds | int)) ($pool.probes.startup.periodSeconds | int) | max 1 }}
        {{- include "darkroom.httpProbe" (dict "path" "/readyz" "port" "metrics" "probe" (dict "periodSeconds" $pool.probes.startup.periodSeconds "timeoutSeconds" $pool.probes.startup.timeoutSeconds "failureThreshold" $failures)) | nindent 8 }}
      readinessProbe:
        {{- include "darkroom.httpProbe" (dict "path" "/readyz" "port" "metrics" "probe" $pool.probes.readiness) | nindent 8 }}
      livenessProbe:
        {{- include "darkroom.httpProbe" (dict "path" "/livez" "port" "metrics" "probe" $pool.probes.liveness) | nindent 8 }}
      resources:
        {{- include "darkroom.workerResources" $pool | nindent 8 }}
      securityContext:
        {{- include "darkroom.containerSecurityContext" $root | nindent 8 }}
      volumeMounts:
        {{- include "darkroom.baseMounts" $root | nindent 8 }}
        - name: shm
          mountPath: /dev/shm
        {{- if has $pool.modelCache.type (list "claim" "blob") }}
        - name: cache
          mountPath: /cache/models
          {{- if include "darkroom.cacheIsReadOnly" $pool }}
          readOnly: true
          {{- end }}
        {{- else if ne $pool.modelCache.type "image" }}
        - name: cache
          mountPath: /cache
        {{- end }}
  volumes:
    {{- include "darkroom.baseVolumes" $root | nindent 4 }}
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ $pool.sharedMemory }}
    {{- with include "darkroom.cacheVolume" (list $root $pool) | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Whether the worker asks the API server for anything: "true" or "false". */}}
{{- define "darkroom.workerTalksToCluster" -}}
{{- or (eq .Values.dispatch "kubernetes") .Values.workers.deletionCost -}}
{{- end -}}

{{/* Where the models are pulled from. Takes (list root pool). */}}
{{- define "darkroom.modelSource" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- if eq $pool.modelCache.pull.from "blob" -}}
{{- printf "azblob://%s/%s" $root.Values.azure.storage.account $root.Values.azure.storage.modelsContainer -}}
{{- else -}}
hub
{{- end -}}
{{- end -}}

{{- define "darkroom.cacheIsReadOnly" -}}
{{- if or (eq .modelCache.type "blob") (and (eq .modelCache.type "claim") .modelCache.claim.readOnly) -}}true{{- end -}}
{{- end -}}

{{/* The volume that weights are in. Takes (list root pool). */}}
{{- define "darkroom.cacheVolume" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $cache := $pool.modelCache -}}
{{- if eq $cache.type "emptyDir" }}
- name: cache
  emptyDir:
    sizeLimit: {{ $cache.size }}
{{- else if eq $cache.type "ephemeral" }}
- name: cache
  ephemeral:
    volumeClaimTemplate:
      metadata:
        labels:
          {{- include "darkroom.selectorLabels" (list $root $pool.component) | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $cache.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $cache.size }}
{{- else if eq $cache.type "claim" }}
- name: cache
  persistentVolumeClaim:
    claimName: {{ $cache.claim.name }}
    {{- if $cache.claim.readOnly }}
    readOnly: true
    {{- end }}
{{- else if eq $cache.type "blob" }}
- name: cache
  persistentVolumeClaim:
    claimName: {{ include "darkroom.named" (list $root "models") }}
    readOnly: true
{{- end }}
{{- end -}}

{{/* Requests and limits with the GPU or MIG slice in both, as extended resources want it. */}}
{{- define "darkroom.workerResources" -}}
{{- $limits := deepCopy (.resources.limits | default dict) -}}
{{- $requests := deepCopy .resources.requests -}}
{{- if .gpuCount -}}
{{- $_ := set $limits .gpuResource (.gpuCount | int) -}}
{{- $_ := set $requests .gpuResource (.gpuCount | int) -}}
{{- end -}}
{{- toYaml (dict "requests" $requests "limits" $limits) -}}
{{- end -}}

{{/* Which nodes a pool's pods may be on, and which they prefer. Takes (list root pool). */}}
{{- define "darkroom.gpuPlacement" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $tolerations := $pool.tolerations | default list -}}
{{- if $pool.gpuCount -}}
{{- $tolerations = concat $tolerations $root.Values.gpuNodes.tolerations -}}
{{- end -}}
{{- if $pool.spot -}}
{{- $tolerations = append $tolerations (dict "key" "kubernetes.azure.com/scalesetpriority" "operator" "Equal" "value" "spot" "effect" "NoSchedule") -}}
{{- end -}}
{{- with $pool.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $gpuNode := dict "key" $root.Values.gpuNodes.labelKey "operator" "Exists" -}}
{{- $spotNode := dict "key" "kubernetes.azure.com/scalesetpriority" "operator" "In" "values" (list "spot") -}}
{{- $required := list -}}
{{- $preferred := list -}}
{{- if $pool.gpuCount -}}
{{- if $root.Values.gpuNodes.labelRequired -}}
{{- $required = append $required $gpuNode -}}
{{- else -}}
{{- $preferred = append $preferred (dict "weight" 10 "preference" (dict "matchExpressions" (list $gpuNode))) -}}
{{- end -}}
{{- end -}}
{{- if $pool.spot -}}
{{- if $pool.onDemandFallback -}}
{{- $preferred = append $preferred (dict "weight" 100 "preference" (dict "matchExpressions" (list $spotNode))) -}}
{{- else -}}
{{- $required = append $required $spotNode -}}
{{- end -}}
{{- end -}}
{{- if or $required $preferred }}
affinity:
  nodeAffinity:
    {{- with $required }}
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            {{- toYaml . | nindent 12 }}
    {{- end }}
    {{- with $preferred }}
    preferredDuringSchedulingIgnoredDuringExecution:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* The PriorityClass of a pool: its own, or the chart's. Takes (list root pool). */}}
{{- define "darkroom.priorityClass" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- if $pool.priorityClassName -}}
{{- $pool.priorityClassName -}}
{{- else if $root.Values.priorityClasses.create -}}
{{- include "darkroom.clusterNamed" (list $root $pool.priority) -}}
{{- end -}}
{{- end -}}
