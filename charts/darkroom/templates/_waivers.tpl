{{/*
Findings of the policy scan (.ci/scan) that are right and stay, each with its reason. Annotations of
the object, not of its pods: another reason replaces no worker. Takes a list of checks; empty ones
are left out.
*/}}
{{- define "darkroom.waivers" -}}
{{- $reasons := dict
  "CKV_K8S_8" "a test that runs once and ends has nothing to probe"
  "CKV_K8S_9" "a test that runs once and ends has nothing to probe"
  "CKV_K8S_11" "a CPU limit throttles while cores beside are idle; memory is limited and CPU requested"
  "CKV_K8S_38" "it calls the API server, by a role with the calls that its code makes and no other" -}}
# Waived in the policy scan, .ci/scan.
{{- range $number, $check := compact . }}
checkov.io/skip{{ add1 $number }}: {{ printf "%s=%s" $check (get $reasons $check | required (printf "no reason for %s" $check)) }}
{{- end }}
{{- end -}}
