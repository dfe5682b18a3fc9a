"""The artifacts that only the demo world writes: what its items really are, and what stood behind each step."""

from __future__ import annotations

import pyarrow as pa

from tessera.artifacts.tables import KINDS
from tessera.data.bazaar.world import INTERESTS

LATENTS = pa.schema(
    [
        ("raw_id", pa.string()),
        ("all", pa.list_(pa.float32())),
        ("text", pa.list_(pa.float32())),
        ("image", pa.list_(pa.float32())),
    ]
)
TRUTH = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("position", pa.int32()),
        ("tastes", pa.list_(pa.int32(), INTERESTS)),
        ("weights", pa.list_(pa.float64(), INTERESTS)),
    ]
)
KINDS.update({"latents": (1, LATENTS), "truth": (1, TRUTH)})
