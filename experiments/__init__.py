"""Commands: `python -m experiments.<name> --help`, from a clone of the repository."""

import importlib.util

# What the library itself does not need, by the modules that are imported.
NEEDED = (
    *("absl", "matplotlib", "ml_collections", "orbax"),
    *("rich", "scipy", "tensorboardX"),
)

_missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if _missing:
    raise SystemExit(
        f"error: {', '.join(_missing)} missing: pip install -e '.[run]' in the clone"
    )
