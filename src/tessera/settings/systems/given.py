"""Settings of scores that another program made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Seeds
from tessera.settings.systems.base import SystemSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


class GivenSystem(SystemSettings):
    """Scores or ranked lists from a file (CSV or Parquet, a row a user and item), made by any program on the dataset's
    split; judged like every other system."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.given:Given"
    ONLY_JUDGED: ClassVar[bool] = True

    recommender: Literal["given"] = "given"
    path: str
    """The file, or a folder of its parts, looked up like data files; `{dataset}` and `{seed}` in it stand for the
    dataset's name and the seed."""
    user: str = Field("user", min_length=1)
    """Column of raw user ids, as in the log."""
    item: str = Field("item", min_length=1)
    """Column of raw item ids, as in the log."""
    score: str | None = None
    """Column of scores: the larger, the better. null takes the column `score` where there is one and `rank` is null."""
    rank: str | None = None
    """Column of ranks: the smaller, the better. null takes the column `rank` of a file without scores."""
    seeds: Seeds = Field(default_factory=lambda: [0])
    """A file a seed, where the program was run with several: `path` then holds `{seed}`."""

    @model_validator(mode="after")
    def _one_order(self) -> GivenSystem:
        if self.score is not None and self.rank is not None:
            raise ValueError(f"score ({self.score!r}) and rank ({self.rank!r}) are both named; items have one order")
        if len(self.seeds) > 1 and "{seed}" not in self.path:
            raise ValueError(f"path: {self.path!r} is one file for {len(self.seeds)} seeds; put {{seed}} into it")
        return self

    def source(self, dataset: str, seed: int) -> str:
        """The file of a dataset and a seed."""
        return self.path.replace("{dataset}", dataset).replace("{seed}", str(seed))

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also one file for several datasets."""
        yield from super().problems(config)
        datasets = config.experiment.datasets
        compared = any(config.systems.get(name) is self for name in config.experiment.systems)
        if compared and len(datasets) > 1 and "{dataset}" not in self.path:
            yield "path", f"{self.path!r} is one file for the datasets {', '.join(datasets)}; put {{dataset}} into it"

    def remarks(self) -> list[str]:
        """That nothing here knows what the program learned from."""
        return ["ranked by a file of another program"]
