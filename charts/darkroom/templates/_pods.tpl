{{/* What Pod Security "restricted" asks of a pod; the user is the images' own. */}}
{{- define "darkroom.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser | int64 }}
runAsGroup: {{ .Values.podSecurity.runAsGroup | int64 }}
fsGroup: {{ .Values.podSecurity.fsGroup | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What it asks of a container, and a root that nothing can be written to. */}}
{{- define "darkroom.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/*
The labels of a pod. No version is among them: a release that changes nothing of a pod must not
replace a busy worker. Takes (dict root component tier labels).
*/}}
{{- define "darkroom.podLabels" -}}
{{ include "darkroom.selectorLabels" (list .root .component) }}
app.kubernetes.io/part-of: darkroom
{{- if include "darkroom.usesWorkloadIdentity" (list .root .tier) }}
azure.workload.identity/use: "true"
{{- end }}
{{- with merge (deepCopy .labels) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The part of every pod that does not depend on its tier. Takes (dict root tier token). */}}
{{- define "darkroom.podBasics" -}}
serviceAccountName: {{ include "darkroom.serviceAccount" (list .root .tier) }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
securityContext:
  {{- include "darkroom.podSecurityContext" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Keeps a pod without a GPU off the nodes that have one. Takes (list root settings). */}}
{{- define "darkroom.cpuPlacement" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- with $tier.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tier.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: {{ $root.Values.gpuNodes.labelKey }}
              operator: DoesNotExist
{{- end -}}

{{/* Spreads the pods of a component over zones and nodes. Takes (list root component when). */}}
{{- define "darkroom.spread" -}}
{{- $labels := include "darkroom.selectorLabels" (list (index . 0) (index . 1)) -}}
{{- $when := index . 2 -}}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    # A node that no pod of these may go to, such as one of a system pool, is none to spread over.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- $labels | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* A probe by HTTP. Takes (dict path port probe), the numbers from values. */}}
{{- define "darkroom.httpProbe" -}}
httpGet:
  path: {{ .path }}
  port: {{ .port }}
  scheme: HTTP
periodSeconds: {{ .probe.periodSeconds | int }}
timeoutSeconds: {{ .probe.timeoutSeconds | int }}
failureThreshold: {{ .probe.failureThreshold | int }}
{{- end -}}

{{/* Volumes and mounts of the catalog, of /tmp, and of the shared folder of test clusters. */}}
{{- define "darkroom.baseVolumes" -}}
- name: catalog
  configMap:
    name: {{ include "darkroom.catalogName" . }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.podSecurity.tmpSizeLimit }}
{{- if .Values.sharedVolume.enabled }}
- name: data
  persistentVolumeClaim:
    claimName: {{ .Values.sharedVolume.existingClaim | default (include "darkroom.named" (list . "data")) }}
{{- end }}
{{- end -}}

{{- define "darkroom.baseMounts" -}}
- name: catalog
  mountPath: /etc/darkroom
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.sharedVolume.enabled }}
- name: data
  mountPath: /data
{{- end }}
{{- end -}}

{{/* Files from a Key Vault or from Secrets. Takes (list root tier). */}}
{{- define "darkroom.secretVolumes" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- $files := include "darkroom.secretFiles" . | fromJson -}}
{{- if $files }}
{{- if $root.Values.keyVault.enabled }}
- name: secrets
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes:
      secretProviderClass: {{ include "darkroom.named" (list $root $tier) }}
{{- else }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $file, $from := $files }}
      - secret:
          name: {{ $from.secret }}
          items:
            - key: {{ $from.key }}
              path: {{ $file }}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "darkroom.secretMounts" -}}
{{- if include "darkroom.secretFiles" . | fromJson }}
- name: secrets
  mountPath: /mnt/secrets
  readOnly: true
{{- end }}
{{- end -}}

{{/*
The secret files of a tier, as JSON: file name to where it comes from. The API checks keys and
whether a tenant has a webhook secret; the sender signs; nobody else gets any.
*/}}
{{- define "darkroom.secretFiles" -}}
{{- $root := index . 0 -}}
{{- $tier := index . 1 -}}
{{- $files := dict -}}
{{- if and (eq $tier "api") (has "api_keys" (splitList "," $root.Values.auth.mode)) -}}
{{- $_ := set $files "api-keys.yaml" $root.Values.auth.apiKeys -}}
{{- end -}}
{{- if and (has $tier (list "api" "webhooks")) $root.Values.webhooks.enabled -}}
{{- $_ := set $files "webhook-secrets.yaml" $root.Values.webhooks.secrets -}}
{{- end -}}
{{- $files | toJson -}}
{{- end -}}

{{/* Whether pods of a tier get tokens of Workload ID: non-empty if so. Takes (list root tier). */}}
{{- define "darkroom.usesWorkloadIdentity" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.identity.enabled -}}true{{- end -}}
{{- end -}}

{{/* The client id of a tier; the doctor asks as the API. */}}
{{- define "darkroom.clientId" -}}
{{- $root := index . 0 -}}
{{- get $root.Values.identity.clientIds (index . 1) | default $root.Values.identity.clientIds.api -}}
{{- end -}}
