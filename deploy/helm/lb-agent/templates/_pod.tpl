{{- define "lb-agent.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The pod sees its own folder of the node's BPF file system, and nothing else of it. */}}
{{- define "lb-agent.pins" -}}
- name: pins
  hostPath:
    path: /sys/fs/bpf/lb-agent
    type: DirectoryOrCreate
{{- end }}

{{/* The settings as the agent reads them: numbers in full, where toYaml would write 1.048576e+06. */}}
{{- define "lb-agent.settings" -}}
{{- range $name, $value := . }}
{{- if kindIs "slice" $value }}
{{ $name }}: {{ toJson $value }}
{{- else if kindIs "float64" $value }}
{{ $name }}: {{ printf "%.0f" $value }}
{{- else }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
