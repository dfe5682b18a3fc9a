"""The demo world: a generated shop whose process, and so whose best reachable metric, is known (docs/bazaar.md)."""
