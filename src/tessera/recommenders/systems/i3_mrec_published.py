"""I3-MRec in sequential form with the published habits that are thought wrong."""

from __future__ import annotations

from tessera.recommenders.published_environments import (
    PublishedCompressed,
    PublishedEnvironments,
    PublishedFusion,
    PublishedKept,
)
from tessera.recommenders.systems.i3_mrec import I3MRec


class PublishedI3MRec(I3MRec):
    """The sequential form."""

    FUSION, ENVIRONMENTS, KEPT, COMPRESSED = PublishedFusion, PublishedEnvironments, PublishedKept, PublishedCompressed
