"""What both forms of I3-MRec have in common: two optimisers in turn, the invariance, the information bottleneck."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.objectives.invariance import gradient_penalty, variance_of_risks
from tessera.recommenders.environments import Environments, MaskedFusion, Views
from tessera.recommenders.fused_information import CompressedInformation, KeptInformation
from tessera.recommenders.inputs import RunInputs, Table
from tessera.recommenders.item_encoders.parts import at_most, of_all_processes
from tessera.recommenders.missing import Lost, Present, present_in_any
from tessera.recommenders.risks import means_of_all
from tessera.recommenders.systems.base import TrainingHistories, Validate, VectorRecommender
from tessera.settings.runs import Run
from tessera.settings.systems.i3_mrec_base import InvariantModalities
from tessera.training.losses import Losses, Term, reported
from tessera.training.phases import Optimizer, Phase, Position, Update


class Modalities:
    """The tables of a run: by modality, their vectors and what is lost of them."""

    def __init__(self, settings: InvariantModalities, system: str, inputs: RunInputs, items: int) -> None:
        """
        Args:
            settings: which tables are read.
            system: its name in the config, for warnings.
            inputs: the tables.
            items: of the catalogue.
        Raises:
            ValueError: a table was not given or says nothing of any item.
        """
        self.settings = settings
        self.tables: dict[str, Table] = {n: inputs.read_table(t, items) for n, t in settings.modalities.items()}
        self.lost: dict[str, Lost | None] = {n: inputs.lost(t, items) for n, t in settings.modalities.items()}
        single = len(self.tables) == 1 and not settings.knows_ids
        if single and (settings.invariance is not None or settings.keep is not None):
            log.warning(
                "%s: %s is the only environment: there is nothing to be invariant over, and no two absences "
                "differ; invariance and keep are left out",
                system, next(iter(self.tables)),
            )  # fmt: skip

    def anywhere(self) -> Present:
        """Which items any environment knows; IDs know all."""
        if self.settings.knows_ids:
            count = len(next(iter(self.tables.values()))[1])
            return Present(torch.arange(count) > 0)
        return present_in_any(self.tables, self.lost)


class InvariantRecommender(VectorRecommender):
    """Environments, their fusion, and the losses that both forms have beside that of the recommender."""

    FUSION: ClassVar[type[MaskedFusion]] = MaskedFusion
    ENVIRONMENTS: ClassVar[type[Environments]] = Environments
    KEPT: ClassVar[type[KeptInformation]] = KeptInformation
    COMPRESSED: ClassVar[type[CompressedInformation]] = CompressedInformation

    def __init__(self, settings: InvariantModalities, modalities: Modalities, dim: int, seed: int) -> None:
        """
        Args:
            settings: of the system.
            modalities: what is read.
            dim: width of item vectors.
            seed: of which items of a step are compared.
        """
        super().__init__()
        self.seed = seed
        self.environments = self.ENVIRONMENTS(settings, modalities.tables, modalities.lost, dim)
        self.fusion = self.FUSION(settings, modalities.anywhere(), dim)
        several = len(self.environments.names) > 1
        self.invariance = settings.invariance if several else None
        self.keep, self.compress = settings.keep if several else None, settings.compress
        self.kept = None if self.keep is None else self.KEPT(settings, self.keep, self.fusion)
        self.compressed = (
            None if self.compress is None else self.COMPRESSED(settings, self.compress, self.environments.widths, dim)
        )
        self.environment_weight = settings.environment_weight

    # ------------------------------------------------------------ two optimisers in turn

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """One phase of epochs; with estimators, two optimisers in turn, and neither moves what is the other's."""
        phase = self.epochs(run, self.batches(run, histories), validate)
        if self.compressed is None or self.compress is None:
            return [phase]
        estimators = list(self.compressed.parameters())
        others = {id(parameter) for parameter in estimators}
        model = [parameter for parameter in self.parameters() if id(parameter) not in others]
        optimizers = {
            "model": Optimizer(run.training, model),
            "club": Optimizer(
                run.training.model_copy(update={"learning_rate": self.compress.learning_rate}), estimators
            ),
        }
        return [replace(phase, updates=self._updates, optimizers=optimizers)]

    def _updates(self, batch: Any, at: Position) -> Iterator[Update]:
        yield Update(partial(self.losses, batch.to(self.fusion.absent.device), at))
        yield Update(self._fit, "club")

    def _fit(self) -> Losses:
        """How badly the estimators know what they were asked about in the step before."""
        assert self.compressed is not None
        loss = self.compressed.fit()
        return {"club": Term(loss), "club_fit": reported(loss.detach())}

    # ------------------------------------------------------------ losses

    @property
    def needs_gradients(self) -> bool:
        """Whether the invariance is by gradients of risks."""
        return self.invariance is not None and self.invariance.penalty == "gradient"

    def environment_losses(
        self, risks: list[Tensor], gradients: list[Tensor], counts: list[Tensor], targets: Tensor, at: Position
    ) -> Losses:
        """The sum of the environments' risks, and how unlike they are.

        Args:
            risks: () of each environment, summed over those of its targets that it knows.
            gradients: () of each, summed too; empty where they are not needed.
            counts: () of each, how many were summed.
            targets: () of this process.
            at: where training stands.
        """
        if not (self.environment_weight or self.invariance):
            return {}
        means, everywhere = means_of_all(torch.stack(risks), torch.stack(counts), targets)
        met = everywhere > 0
        losses: dict[str, Term] = {
            f"risk_{name}": reported(mean) for name, mean in zip(self.environments.names, means.detach(), strict=True)
        }
        if self.environment_weight:
            losses["environments"] = Term(self.environment_weight * means.sum())
        if self.invariance is not None:
            if self.needs_gradients:
                slopes, _ = means_of_all(torch.stack(gradients), torch.stack(counts), targets)
                penalty = gradient_penalty(slopes[met])
            else:
                penalty = variance_of_risks(means[met])
            warm_up = self.invariance.warm_up
            height = min(1.0, at.share / warm_up) if warm_up else 1.0
            losses["invariance"] = Term(self.invariance.weight * height * penalty)
            losses["penalty"] = reported(penalty.detach())
        return losses

    def information_losses(self, views: Views, fused: Tensor, items: Tensor, at: Position) -> Losses:
        """What fused vectors keep and leave out, over the step's items, each once.

        Args:
            views: of all items.
            fused: (items + 1, dim).
            items: (n,) of this process.
            at: where training stands.
        """
        if self.kept is None and self.compressed is None:
            return {}
        members: Tensor = of_all_processes(items).unique()  # type: ignore[no-untyped-call]
        losses: dict[str, Term] = {}
        if self.kept is not None and self.keep is not None:
            kept = self.kept(views, at_most(members, self.keep.most_items, self.seed, at.epoch, at.step))
            losses["keep"] = Term(self.keep.weight * kept)
        if self.compressed is not None and self.compress is not None:
            some = at_most(members, self.compress.most_items, self.seed, at.epoch, at.step)
            bound = self.compressed(self.environments, views, fused, some)
            losses["compress"] = Term(self.compress.weight * bound)
            losses["information"] = reported(bound.detach())
        return losses

    # ------------------------------------------------------------ new items

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`."""
        self.environments.add_items(tables)
        self.fusion.any.add(torch.stack([tables[name][1] for name in self.environments.tables.values()]).any(0))
