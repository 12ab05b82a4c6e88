"""Reading of config fields: each is checked where it is read, and none is ignored."""

import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import base
from experiments.errors import UserError


class Fields:
    """Reads fields of a config, and remembers which, so that the rest is refused."""

    def __init__(self, config: ConfigDict):
        self.values = flatten(config)
        self._defaults = flatten(base.get_config())
        self._read: set[str] = set()
        unknown = sorted(set(self.values) ^ set(self._defaults))
        if unknown:
            raise UserError(f"config fields do not match configs/base.py: {unknown}")

    def __call__(
        self,
        name: str,
        *,
        at_least: float | None = None,
        above: float | None = None,
        at_most: float | None = None,
        below: float | None = None,
        one_of: Sequence[Any] | None = None,
    ) -> Any:
        """The value of `group.field`, of the default's type and within the limits.

        Raises:
          UserError: naming the field, its value and what is allowed.
        """
        if name not in self._defaults:
            raise UserError(f"{name}: is read, but is not a field of configs/base.py")
        self._read.add(name)
        value, default = self.values[name], self._defaults[name]
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(
            default, bool
        ):
            wanted = type(default).__name__
            raise UserError(f"{name}={value!r}: must be of type {wanted}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}={value!r}: must be finite")
        limits = {
            "at least": (at_least, lambda limit: value >= limit),
            "above": (above, lambda limit: value > limit),
            "at most": (at_most, lambda limit: value <= limit),
            "below": (below, lambda limit: value < limit),
        }
        wanted = {k: limit for k, (limit, _) in limits.items() if limit is not None}
        if not all(limits[k][1](limit) for k, limit in wanted.items()):
            allowed = " and ".join(f"{k} {limit}" for k, limit in wanted.items())
            raise UserError(f"{name}={value!r}: must be {allowed}")
        if one_of is not None and value not in one_of:
            allowed = ", ".join(map(str, one_of))
            raise UserError(f"{name}={value!r}: allowed are {allowed}")
        return value

    def refuse_unread(self) -> None:
        """Raises UserError for a field that was changed, but that nothing reads."""
        ignored = [
            f"{name}={value!r}"
            for name, value in self.values.items()
            if name not in self._read and value != self._defaults[name]
        ]
        if ignored:
            raise UserError(
                f"{', '.join(ignored)}: would change nothing in this run (its strategy,"
                " loss or energy does not read it); leave the default"
            )


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{group.field: value}, tuples and lists as tuples."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{key}": v for key, v in flatten(value).items()}
        else:
            flat[name] = tuple(value) if isinstance(value, list) else value
    return flat
