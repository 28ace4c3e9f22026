{{/* The names of all objects. At most 63 bytes; the longest suffix has 6. */}}
{{- define "gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "gateway.podLabels" -}}
{{ include "gateway.selectorLabels" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "gateway.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Whether somebody else decides how many pods there are. */}}
{{- define "gateway.autoscaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}true{{- end -}}
{{- end -}}

{{/* Seconds of a Go duration (1m30s, 500ms), rounded up. */}}
{{- define "gateway.seconds" -}}
{{- $total := 0.0 -}}
{{- $text := . | toString -}}
{{- if not (regexMatch "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$" $text) -}}
{{- fail (printf "config: %q is not a duration such as 500ms, 30s or 1m30s" $text) -}}
{{- end -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" $text -1 -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $total = addf $total (mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0) $unit)) -}}
{{- end -}}
{{- $total | ceil | int -}}
{{- end -}}

{{/* The drain's settings, and what follows from them: this is the one place. */}}
{{- define "gateway.drainDelay" -}}
{{- default "5s" .Values.config.drain_delay -}}
{{- end -}}
{{- define "gateway.drainTimeout" -}}
{{- default "30s" .Values.config.drain_timeout -}}
{{- end -}}
{{- define "gateway.gracePeriod" -}}
{{- add (include "gateway.seconds" (include "gateway.drainTimeout" .) | int) 5 -}}
{{- end -}}

{{/* Bytes of a quantity (512Mi, 1G, 1073741824). */}}
{{- define "gateway.bytes" -}}
{{- $text := . | toString -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "resources.limits.memory: %q is not a quantity such as 512Mi or 1Gi" $text) -}}
{{- end -}}
{{- mulf $number (get $units $unit) | int64 -}}
{{- end -}}

{{/* Turns the whole numbers in a map back into integers: Helm reads all numbers as
floats, and would write a million as 1e+06. */}}
{{- define "gateway.integers" -}}
{{- $map := . -}}
{{- range $key, $value := $map -}}
{{- if kindIs "map" $value -}}
{{- include "gateway.integers" $value -}}
{{- else if and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $_ := set $map $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The gateway's file: config, and what the chart decides. */}}
{{- define "gateway.config" -}}
{{- $own := dict "listen" (printf ":%d" (int .Values.ports.http)) "admin_listen" (printf ":%d" (int .Values.ports.admin)) "log_format" "json" -}}
{{- $config := merge (deepCopy .Values.config) $own -}}
{{- include "gateway.integers" $config -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What the chart's Secret holds. */}}
{{- define "gateway.secrets" -}}
{{- $secrets := dict -}}
{{- if not .Values.auth.existingSecret -}}
{{- $_ := set $secrets .Values.auth.jwtSecretKey .Values.auth.jwtSecret -}}
{{- with .Values.auth.apiKey -}}{{- $_ := set $secrets $.Values.auth.apiKeyKey . -}}{{- end -}}
{{- end -}}
{{- if not .Values.redis.existingSecret -}}
{{- $_ := set $secrets .Values.redis.existingSecretKey (include "gateway.redisURL" .) -}}
{{- end -}}
{{- if .Values.redis.trial.enabled -}}
{{- $_ := set $secrets "trial-redis-password" (include "gateway.trialPassword" .) -}}
{{- end -}}
{{- with $secrets -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* What pods read of it at their start, in a form that changes with it. Whoever may
read pods may not read Secrets: so the names of the release are in it, that the same
secret elsewhere looks otherwise, and it is too short to test guesses against. */}}
{{- define "gateway.secretsChecksum" -}}
{{- with include "gateway.secrets" . -}}
{{- printf "%s/%s\n%s" $.Release.Namespace (include "gateway.fullname" $) . | sha256sum | trunc 8 -}}
{{- end -}}
{{- end -}}

{{/* The password of the trial Redis. What is drawn at random is kept for the rest of the
rendering, and is in the Secret for the next. */}}
{{- define "gateway.trialPassword" -}}
{{- $trial := .Values.redis.trial -}}
{{- if not $trial.password -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace (include "gateway.fullname" .) -}}
{{- if .Values.auth.jwtSecret -}}
{{- $_ := set $trial "password" (printf "trial redis\n%s/%s\n%s" .Release.Namespace (include "gateway.fullname" .) .Values.auth.jwtSecret | sha256sum) -}}
{{- else if dig "data" "trial-redis-password" "" $there -}}
{{- $_ := set $trial "password" (index $there.data "trial-redis-password" | b64dec) -}}
{{- else -}}
{{- $_ := set $trial "password" (randAlphaNum 32) -}}
{{- end -}}
{{- end -}}
{{- $trial.password -}}
{{- end -}}

{{- define "gateway.authSecret" -}}
{{- default (include "gateway.fullname" .) .Values.auth.existingSecret -}}
{{- end -}}
{{- define "gateway.redisSecret" -}}
{{- default (include "gateway.fullname" .) .Values.redis.existingSecret -}}
{{- end -}}
{{- define "gateway.redisURL" -}}
{{- if .Values.redis.trial.enabled -}}
redis://:{{ include "gateway.trialPassword" . }}@{{ include "gateway.fullname" . }}-redis:6379
{{- else -}}
{{- .Values.redis.url -}}
{{- end -}}
{{- end -}}
