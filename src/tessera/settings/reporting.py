"""Settings of tables and the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings


class Report(Settings):
    """What the report shows."""

    title: str = "Tessera report"
    """Title of the page."""
    sample_items: int = Field(12, ge=0)
    """Items shown with their pictures, a dataset."""
    sample_users: int = Field(4, ge=0)
    """Test users whose history and recommendations are shown, a dataset."""
    explorer_items: int = Field(1500, ge=0)
    """Items in the explorer of item tables, a dataset; of larger catalogues random ones, their neighbours and so on."""
    explorer_users: int = Field(500, ge=0)
    """Test users shown under any two systems side by side, a dataset; of more, some are spread evenly over the rank of
    the target under the best system."""
    map: Literal["pca", "tsne"] | None = "pca"
    """How item tables become maps, `atlas/<table>.parquet` and on the page; `tsne` shows groups better and takes some
    seconds a table; tables of more than 5,000 items are always laid out by `pca`. null: no maps."""
    main_metric: str = "NDCG@10"
    """The metric of the plots."""
