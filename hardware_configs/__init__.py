"""Limits and costs of hardware targets, one TOML each. None is written yet."""

if __name__ != "stformer.hardware_configs":
    raise ImportError(f"import 'stformer.hardware_configs', not '{__name__}'")
