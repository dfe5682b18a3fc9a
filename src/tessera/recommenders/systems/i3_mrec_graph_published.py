"""I3-MRec as a graph with the published habits that are thought wrong."""

from __future__ import annotations

from torch import Tensor

from tessera.recommenders.published_environments import (
    PublishedCompressed,
    PublishedEnvironments,
    PublishedFusion,
    PublishedKept,
)
from tessera.recommenders.systems.i3_mrec_graph import I3MRecGraph


class PublishedI3MRecGraph(I3MRecGraph):
    """The graph form; the squared lengths are those of the first environment."""

    FUSION, ENVIRONMENTS, KEPT, COMPRESSED = PublishedFusion, PublishedEnvironments, PublishedKept, PublishedCompressed

    def lengths(self, users: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """See `I3MRecGraph.lengths`."""
        if self.settings.regularize == "first":
            users, positive, negative = users[:1], positive[:1], negative[:1]
        return super().lengths(users, positive, negative)
