"""What stages ask of the machine."""

from __future__ import annotations

from tessera.settings.resources import Resources


def test_memory_doubles_at_two_retries_and_no_more() -> None:
    """A stage that goes on after many time limits asks for what some node has."""
    assert [Resources(mem_mb=700).memory(attempt) for attempt in range(1, 7)] == [700, 1400, 2800, 2800, 2800, 2800]
