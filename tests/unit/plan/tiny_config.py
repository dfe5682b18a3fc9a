"""The plan of config/tiny.yaml with keys changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tessera.plan.graph import Plan
from tessera.settings.config import load

ROOT = Path(__file__).resolve().parents[3]


def edited(**changes: Any) -> Plan:
    """A double underscore goes one level down."""
    config = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        part = config
        for key in outer:
            part = part.setdefault(key, {})
        part[last] = value
    return Plan(load(config))
