"""Which module holds which click-through model: read by the workflow, so it loads nothing."""

MODELS = {
    "avg": "tessera.ctr.models.avg",
    "din": "tessera.ctr.models.din",
    "sim_hard": "tessera.ctr.models.sim_hard",
    "sim_soft": "tessera.ctr.models.sim_soft",
    "eta": "tessera.ctr.models.eta",
    "sdim": "tessera.ctr.models.sdim",
    "twin": "tessera.ctr.models.twin",
    "mirrn": "tessera.ctr.models.mirrn",
    "r2led": "tessera.ctr.models.r2led",
}
"""Kind of model -> module with a class `Model`."""
