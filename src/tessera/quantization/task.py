"""What the stage that makes semantic IDs gets: settings with every name resolved."""

from __future__ import annotations

from tessera.settings.base import Settings
from tessera.settings.quantizers.base import SemanticIds

# quantizer -> module, loaded when used: the workflow names it, so that an edit to one re-runs only its own codes
QUANTIZERS = {
    "rq_vae": "tessera.quantization.rq_vae",
    "mm_rq_vae": "tessera.quantization.mm_rq_vae",
    "rq_kmeans": "tessera.quantization.rq_kmeans",
    "balanced_rq_kmeans": "tessera.quantization.balanced",
    "pq": "tessera.quantization.pq",
    "given": "tessera.quantization.given",
}


class QuantizeTask(Settings):
    """What makes one set of semantic IDs on one dataset."""

    settings: SemanticIds
