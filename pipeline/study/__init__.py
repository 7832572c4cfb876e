"""params.yaml -> a study: frozen, validated sections, their references, the layout of folders."""
