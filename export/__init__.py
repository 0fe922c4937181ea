"""Interchange formats, one file each. None is written yet: see the roadmap in the README."""

if __name__ != "stformer.export":  # two names would mean two copies of the registry
    raise ImportError(f"import 'stformer.export', not '{__name__}'")
