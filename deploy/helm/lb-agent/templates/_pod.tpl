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
