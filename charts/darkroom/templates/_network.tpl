{{/* Rules by address to ports. Takes (dict cidrs except ports). */}}
{{- define "darkroom.toAddresses" -}}
- to:
    {{- $except := .except }}
    {{- range .cidrs }}
    - ipBlock:
        cidr: {{ . }}
        {{- if and (or (eq . "0.0.0.0/0") (eq . "::/0")) $except }}
        {{- $family := eq . "::/0" }}
        {{- $fitting := list }}
        {{- range $except }}
        {{- if eq $family (contains ":" .) }}{{ $fitting = append $fitting . }}{{ end }}
        {{- end }}
        {{- with $fitting }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- end }}
    {{- end }}
  ports:
    {{- range .ports }}
    - protocol: TCP
      port: {{ . | int }}
    {{- end }}
{{- end -}}

{{/* From the pods that scrape metrics to one port. Takes (list root port). */}}
{{- define "darkroom.fromMonitoring" -}}
{{- $root := index . 0 -}}
- from:
    {{- toYaml $root.Values.networkPolicies.monitoring.from | nindent 4 }}
  ports:
    - protocol: TCP
      port: {{ index . 1 }}
{{- end -}}

{{/* The head of a policy for the pods of a component. Takes (dict root component namespace). */}}
{{- define "darkroom.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "darkroom.named" (list .root .component) }}
  namespace: {{ .namespace }}
  labels:
    {{- include "darkroom.labels" (list .root .component) | nindent 4 }}
{{- end -}}

{{/* Out to Azure, and to a Redis that counts requests. Takes (list root withRedis). */}}
{{- define "darkroom.toAzure" -}}
{{- $root := index . 0 -}}
{{- $policies := $root.Values.networkPolicies -}}
{{ include "darkroom.toAddresses" (dict "cidrs" $policies.azure.cidrs "except" (list "169.254.169.254/32") "ports" $policies.azure.ports) }}
{{- if and (index . 1) $root.Values.api.limits.url }}
{{ include "darkroom.toAddresses" (dict "cidrs" $policies.redis.cidrs "except" (list "169.254.169.254/32") "ports" $policies.redis.ports) }}
{{- end }}
{{- end -}}

{{/* Out to the API server of the cluster. */}}
{{- define "darkroom.toCluster" -}}
{{ include "darkroom.toAddresses" (dict "cidrs" .Values.networkPolicies.cluster.cidrs "except" (list "169.254.169.254/32") "ports" .Values.networkPolicies.cluster.ports) }}
{{- end -}}

{{/* How the gateway shall serve the Ingress; ingress.annotations goes over it. */}}
{{- define "darkroom.gatewayAnnotations" -}}
appgw.ingress.kubernetes.io/backend-protocol: http
appgw.ingress.kubernetes.io/ssl-redirect: "true"
appgw.ingress.kubernetes.io/health-probe-path: /readyz
appgw.ingress.kubernetes.io/health-probe-status-codes: "200"
appgw.ingress.kubernetes.io/connection-draining: "true"
appgw.ingress.kubernetes.io/connection-draining-timeout: {{ .Values.api.drainSeconds | int | add 15 | quote }}
# The longest answer is that of a route that waits for its pictures.
appgw.ingress.kubernetes.io/request-timeout: {{ add (ceil (.Values.api.syncWaitSeconds | float64) | int) 30 | quote }}
{{- with .Values.ingress.webApplicationFirewallPolicyId }}
appgw.ingress.kubernetes.io/waf-policy-for-path: {{ . | quote }}
{{- end }}
{{- with .Values.ingress.tls.gatewayCertificate }}
appgw.ingress.kubernetes.io/appgw-ssl-certificate: {{ . | quote }}
{{- end }}
{{- if .Values.ingress.usePrivateAddress }}
appgw.ingress.kubernetes.io/use-private-ip: "true"
{{- end }}
{{- end -}}
