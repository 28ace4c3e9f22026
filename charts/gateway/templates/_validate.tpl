{{/* Values that contradict each other stop the installation, with a sentence. */}}
{{- define "gateway.validate" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}

{{- if and $v.auth.existingSecret (or $v.auth.jwtSecret $v.auth.apiKey) -}}
{{- $wrong = append $wrong "auth: give either existingSecret, or jwtSecret and apiKey, not both" -}}
{{- end -}}
{{- if not (or $v.auth.existingSecret $v.auth.jwtSecret) -}}
{{- $wrong = append $wrong "auth: the gateway needs the secret that client tokens are signed with: set auth.jwtSecret, or auth.existingSecret" -}}
{{- end -}}

{{- if and (eq (toString $v.config.pprof) "true") (not $v.networkPolicy.enabled) -}}
{{- $wrong = append $wrong "config.pprof: shows the memory of the process to every pod that reaches the admin port; set networkPolicy.enabled, and adminFrom" -}}
{{- end -}}

{{- $redis := 0 -}}
{{- range list $v.redis.url $v.redis.existingSecret $v.redis.trial.enabled -}}{{- if . -}}{{- $redis = add1 $redis -}}{{- end -}}{{- end -}}
{{- if eq (int $redis) 0 -}}
{{- $wrong = append $wrong "redis: the gateway needs a Redis: set redis.url or redis.existingSecret, or redis.trial.enabled to try it out" -}}
{{- else if gt (int $redis) 1 -}}
{{- $wrong = append $wrong "redis: give only one of redis.url, redis.existingSecret and redis.trial.enabled" -}}
{{- end -}}

{{- range $key, $where := dict "dev" "nothing: development mode is for loopback only" "redis" "redis.url or redis.existingSecret" "jwt_secret" "auth.jwtSecret or auth.existingSecret" "api_key" "auth.apiKey or auth.existingSecret" "listen" "ports.http" "admin_listen" "ports.admin" "node_name" "nothing: a node is named after its pod" -}}
{{- if hasKey $v.config $key -}}
{{- $wrong = append $wrong (printf "config.%s: does not belong there; set %s" $key $where) -}}
{{- end -}}
{{- end -}}
{{- $own := dict "GATEWAY_REDIS" "redis.url or redis.existingSecret" "GATEWAY_JWT_SECRET" "auth.jwtSecret or auth.existingSecret" "GATEWAY_API_KEY" "auth.apiKey or auth.existingSecret" "GATEWAY_NODE_NAME" "nothing: a node is named after its pod" "GOMEMLIMIT" "goMemoryPercent" "GATEWAY_LISTEN" "ports.http" "GATEWAY_ADMIN_LISTEN" "ports.admin" "GATEWAY_CONFIG" "config" "GATEWAY_PPROF" "config.pprof" "GATEWAY_DRAIN_TIMEOUT" "config.drain_timeout, from which the grace period follows" -}}
{{- range $v.extraEnv -}}
{{- with get $own .name -}}
{{- $wrong = append $wrong (printf "extraEnv: the chart sets the variable itself; set %s" .) -}}
{{- end -}}
{{- end -}}
{{- if ge (include "gateway.seconds" (include "gateway.drainDelay" .) | int) (include "gateway.seconds" (include "gateway.drainTimeout" .) | int) -}}
{{- $wrong = append $wrong (printf "config: drain_delay (%s) must be shorter than drain_timeout (%s)" (include "gateway.drainDelay" .) (include "gateway.drainTimeout" .)) -}}
{{- end -}}
{{- if eq (int $v.ports.http) (int $v.ports.admin) -}}
{{- $wrong = append $wrong "ports: http and admin must not be the same" -}}
{{- end -}}

{{- if and $v.autoscaling.enabled $v.keda.enabled -}}
{{- $wrong = append $wrong "autoscaling and keda: only one of them may decide how many pods there are" -}}
{{- end -}}
{{- if $v.autoscaling.enabled -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
{{- $wrong = append $wrong "autoscaling: minReplicas must not be more than maxReplicas" -}}
{{- end -}}
{{- if not (or $v.autoscaling.targetCPUPercent $v.autoscaling.targetConnections) -}}
{{- $wrong = append $wrong "autoscaling: set targetCPUPercent, targetConnections or both: there is nothing to scale by" -}}
{{- end -}}
{{- end -}}
{{- if and (or (and $v.autoscaling.enabled $v.autoscaling.targetCPUPercent) (and $v.keda.enabled $v.keda.targetCPUPercent)) (not (dig "requests" "cpu" "" $v.resources)) -}}
{{- $wrong = append $wrong "resources.requests.cpu: is needed to scale by a percentage of it" -}}
{{- end -}}
{{- if $v.keda.enabled -}}
{{- if gt (int $v.keda.minReplicas) (int $v.keda.maxReplicas) -}}
{{- $wrong = append $wrong "keda: minReplicas must not be more than maxReplicas" -}}
{{- end -}}
{{- if and $v.keda.targetConnections (not $v.keda.serverAddress) -}}
{{- $wrong = append $wrong "keda.serverAddress: is needed to scale by connections, for example http://prometheus.monitoring:9090" -}}
{{- end -}}
{{- if not (or $v.keda.targetConnections $v.keda.targetCPUPercent $v.keda.triggers) -}}
{{- $wrong = append $wrong "keda: set targetConnections, targetCPUPercent or triggers: there is nothing to scale by" -}}
{{- end -}}
{{- end -}}

{{- $pdb := $v.podDisruptionBudget -}}
{{- if and $pdb.enabled (not (kindIs "invalid" $pdb.minAvailable)) (not (kindIs "invalid" $pdb.maxUnavailable)) -}}
{{- $wrong = append $wrong "podDisruptionBudget: give maxUnavailable or minAvailable; the other must be null" -}}
{{- end -}}
{{- if and $pdb.enabled (kindIs "invalid" $pdb.minAvailable) (kindIs "invalid" $pdb.maxUnavailable) -}}
{{- $wrong = append $wrong "podDisruptionBudget: give maxUnavailable or minAvailable" -}}
{{- end -}}
{{- $least := int $v.replicas -}}
{{- if $v.autoscaling.enabled -}}{{- $least = int $v.autoscaling.minReplicas -}}{{- end -}}
{{- if $v.keda.enabled -}}{{- $least = int $v.keda.minReplicas -}}{{- end -}}
{{- if and $pdb.enabled (not (kindIs "invalid" $pdb.minAvailable)) (not (kindIs "string" $pdb.minAvailable)) -}}
{{- if ge (int $pdb.minAvailable) $least -}}
{{- $wrong = append $wrong (printf "podDisruptionBudget.minAvailable: %d of %d pods would keep every machine from being emptied" (int $pdb.minAvailable) $least) -}}
{{- end -}}
{{- end -}}

{{- if and $v.monitoring.serviceMonitor.enabled $v.monitoring.podMonitor.enabled -}}
{{- $wrong = append $wrong "monitoring: serviceMonitor and podMonitor together would scrape every pod twice" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong "httpRoute.parentRefs: name the Gateway that the route attaches to" -}}
{{- end -}}
{{- if and $v.service.nodePort (eq $v.service.type "ClusterIP") -}}
{{- $wrong = append $wrong "service.nodePort: needs service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and $v.service.externalTrafficPolicy (eq $v.service.type "ClusterIP") -}}
{{- $wrong = append $wrong "service.externalTrafficPolicy: needs service.type NodePort or LoadBalancer" -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\n%s\n" (join "\n" $wrong)) -}}
{{- end -}}
{{- end -}}
