"""What training says when it cannot go on."""

from __future__ import annotations


class TrainingError(ValueError):
    """Training that cannot go on."""
