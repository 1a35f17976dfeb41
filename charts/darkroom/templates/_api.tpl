{{/*
The pod of an API process. The sweeper is one that nobody calls. Takes (dict root tier settings
sweeps).
*/}}
{{- define "darkroom.apiPod" -}}
{{- $root := .root -}}
{{- $tier := .tier -}}
{{- $own := .settings -}}
{{- $probes := $root.Values.api.probes -}}
metadata:
  labels:
    {{- include "darkroom.podLabels" (dict "root" $root "component" $tier "tier" "api" "labels" $own.podLabels) | nindent 4 }}
  annotations:
    checksum/catalog: {{ include "darkroom.catalogFile" $root | sha256sum }}
    {{- with $own.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "darkroom.podBasics" (dict "root" $root "tier" "api" "token" (eq $root.Values.dispatch "kubernetes")) | nindent 2 }}
  terminationGracePeriodSeconds: {{ add (ceil ($root.Values.api.shutdownSeconds | float64) | int) ($root.Values.api.drainSeconds | int) 15 }}
  {{- if $root.Values.priorityClasses.create }}
  priorityClassName: {{ include "darkroom.clusterNamed" (list $root "api") }}
  {{- end }}
  {{- include "darkroom.cpuPlacement" (list $root $own) | trim | nindent 2 }}
  {{- include "darkroom.spread" (list $root $tier $root.Values.api.spread) | nindent 2 }}
  containers:
    - name: api
      image: {{ include "darkroom.image" (list $root "api") }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [api]
      env:
        {{- include "darkroom.apiEnv" (dict "root" $root "sweeps" .sweeps) | nindent 8 }}
      ports:
        - name: http
          containerPort: 8080
          protocol: TCP
        - name: metrics
          containerPort: 9090
          protocol: TCP
      startupProbe:
        {{- include "darkroom.httpProbe" (dict "path" "/livez" "port" "http" "probe" $probes.startup) | nindent 8 }}
      readinessProbe:
        {{- include "darkroom.httpProbe" (dict "path" "/readyz" "port" "http" "probe" $probes.readiness) | nindent 8 }}
      livenessProbe:
        {{- include "darkroom.httpProbe" (dict "path" "/livez" "port" "http" "probe" $probes.liveness) | nindent 8 }}
      lifecycle:
        preStop:
          # The gateway takes a moment to stop sending here: serve on until it has.
          sleep:
            seconds: {{ $root.Values.api.drainSeconds | int }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      securityContext:
        {{- include "darkroom.containerSecurityContext" $root | nindent 8 }}
      volumeMounts:
        {{- include "darkroom.baseMounts" $root | nindent 8 }}
        {{- with include "darkroom.secretMounts" (list $root "api") | trim }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "darkroom.baseVolumes" $root | nindent 4 }}
    {{- with include "darkroom.secretVolumes" (list $root "api") | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
