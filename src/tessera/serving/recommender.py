"""A finished run in the hands of a person: `tessera.load(folder)`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import ValidationError

from tessera.evaluation.judge import Scorer, reads_times, users_at_once
from tessera.evaluation.nearest import MOST_DENSE, nearest
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.systems.base import VectorScorer
from tessera.serving.arguments import (
    check_attributes,
    check_history,
    check_length,
    check_products,
    check_seen,
    check_stock,
    has_order,
    is_list,
    shown,
)
from tessera.serving.catalogue import Catalogue, Mask, read_catalogue
from tessera.serving.folder import RunFiles, run_files, save_run
from tessera.serving.lists import History, best, rank, states_after
from tessera.serving.new_items import new_to, numbers, read_products, widen, wider
from tessera.settings.base import ConfigError, explain
from tessera.settings.export import Export
from tessera.training.machine import same_modes


class UnknownItems(UserWarning):
    """Ids that are not in the catalogue, and were left out."""


class KnownItems(UserWarning):
    """New items that the catalogue has already; they stay as they were."""


class NoHistory(UserWarning):
    """A history without a known item, for which popular items were recommended."""


class NoTimes(UserWarning):
    """Histories of items alone, given to a run that reads their times."""


class Recommender:
    """A trained run. Takes and gives the ids of the raw data; a history is a list of item ids, oldest first."""

    def __init__(self, files: RunFiles, scorer: Scorer, catalogue: Catalogue) -> None:
        self.run = files.run
        self.catalogue = catalogue
        self.scorer = scorer
        self._files = files

    def __repr__(self) -> str:
        return f"<{self.run.path}: {len(self.catalogue):,} items>"

    def recommend(
        self,
        histories: Iterable[object],
        k: int = 10,
        *,
        seen: bool = False,
        items: Iterable[object] | None = None,
        attribute: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        """The k best next items: columns item, title and score, best first; equal scores in the catalogue's order.

        Items that are not known are left out of a history with a warning; a history of which none is left gets the
        most popular items, with a warning too, and their numbers of training interactions as scores.

        Args:
            histories: one history, or a list of histories; the latter gives a first column `history`, their number.
            k: length of a list; shorter where fewer items are left.
            seen: also recommend items of the history itself.
            items: choose among these alone, e.g. what is in stock.
            attribute: choose among items with these attributes, e.g. `{"brand": "Acme"}`; a list means any of it.
        Raises:
            ValueError: k is no number from 1 on, nothing is left to choose from, or no item has the attribute.
            TypeError: that is no history, no list of items, no mapping of attributes, or `seen` no boolean.
        """
        check_length(k)
        check_seen(seen)
        batch, single = self._read(histories)
        allowed = self._allowed(items, attribute)
        self._tell_empty(batch)
        lists = rank(self.scorer, self.catalogue, batch, min(k, len(self.catalogue)), seen, allowed)
        rows, columns = np.nonzero(lists.items)
        frame = self._frame(lists.items[rows, columns], lists.scores[rows, columns])
        if not single:
            frame.insert(0, "history", rows)
        return frame

    def similar(self, item: object, k: int = 10) -> pd.DataFrame:
        """The k items nearest to an item, by the cosine of the vectors that the system scores with.

        Raises:
            ValueError: the item is not known, k is no number from 1 on, or the system has no vectors.
        """
        check_length(k)
        vectors = self._vectors("similar").item_vectors.detach()
        known, unknown = self.catalogue.find([item])
        if unknown:
            raise ValueError(self.catalogue.unknown_message(unknown))
        if len(vectors) > MOST_DENSE:
            rows, cosines = nearest(self._directions, known.astype(np.int64) - 1, k)
            return self._frame(rows[0] + 1, cosines[0])
        directions = torch.nn.functional.normalize(vectors.float(), dim=1)
        scores = (directions @ directions[known[0] - 1])[None]
        scores[0, known[0] - 1] = -torch.inf
        ids, values = best(scores, min(k, len(self.catalogue) - 1))
        return self._frame(ids[0], values[0])

    @cached_property
    def _directions(self) -> npt.NDArray[np.float32]:
        """(items, dim) the vectors that the system scores with, of length one."""
        vectors = self._vectors("similar").item_vectors.detach()
        return np.asarray(torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy())

    def encode(self, histories: Iterable[object]) -> npt.NDArray[np.float32]:
        """The state after a history, (dim,), or after each of several, (histories, dim).

        A system of several states a history has one dimension more: (states, dim), (histories, states, dim).

        Raises:
            ValueError: the system has no vectors, or a history no known item.
        """
        scorer = self._vectors("encode")
        batch, single = self._read(histories)
        if empty := [number for number, history in enumerate(batch) if not len(history)]:
            raise ValueError(f"history {empty[0]} has no known item: there is nothing to encode")
        states = states_after(scorer, batch, users_at_once(len(self.catalogue)))
        return states[0] if single else states

    def with_items(
        self, products: pd.DataFrame, vectors: Mapping[str, npt.ArrayLike] | None = None, device: str | None = None
    ) -> Recommender:
        """The same run with items that came after training: recommended, and read in histories, like any other.

        They are placed by the tables that the run reads, and nothing is trained. Systems whose items enter by what
        only interactions give them cannot, and say so.

        Args:
            products: columns `item` and `title`; every other column is an attribute.
            vectors: rows by table, (products, width), of tables that are not to be made here from the texts.
            device: where to score; None scores where this run does.
        Raises:
            ValueError: the system cannot place a new item, a table has nothing to place it by, or there is not a row a
                product.
            TypeError: the products are no frame, or the vectors no mapping.
        """
        check_products(products, vectors)
        if self.catalogue.new:
            raise ValueError("new items were added already; load the run again and give all of them at once")
        given = read_products(products)
        items, new = new_to(self.catalogue, given)
        if not new.all():
            ids = given.column("raw_id").to_pylist()
            repeated = ", ".join(repr(raw) for raw, is_new in zip(ids, new, strict=True) if not is_new)
            warnings.warn(f"already in the catalogue: {repeated}; left as they are", KnownItems, stacklevel=2)
            vectors = {name: _of_new(name, rows, new) for name, rows in (vectors or {}).items()}
        extended = load_from(self._files, device or str(getattr(self.scorer, "device", "cpu")))
        if not len(items):
            return extended
        extended.catalogue = wider(self.catalogue, items)
        with same_modes():
            widen(extended.scorer, self._files, items, vectors)
        return extended

    def save(self, folder: str | Path) -> Path:
        """Copy the run and all that it reads into a new folder, which `tessera.load` reads without the dataset.

        Raises:
            FileExistsError: the folder is there already.
            ValueError: it holds items that came after training.
        """
        if self.catalogue.new:
            raise ValueError("save: items that came after training are not kept; save the run as it was loaded")
        return save_run(self._files, self.catalogue.popularity, folder)

    def export(
        self,
        folder: str | Path,
        *,
        index: str = "auto",
        onnx: bool = True,
        licence: str | None = None,
        push: str | None = None,
    ) -> Path:
        """Write the run into a new folder to hand on: what `save` writes, and what other programs read.

        That is item vectors with a faiss index, the user tower as ONNX, ids, semantic IDs back to items, and a model
        card. What the system does not have is left out, and the card says so.

        Args:
            folder: new, or empty; written whole or not at all.
            index: auto (by the size of the catalogue), flat, hnsw or ivf_pq.
            onnx: whether the user tower is written.
            licence: of the weights, as the card tells it.
            push: OWNER/NAME of a repository of the Hugging Face Hub; without it nothing is sent.
        Raises:
            FileExistsError: the folder is there already.
            ValueError: a setting is wrong, a package or a token is missing, or the run holds new items.
        """
        from tessera.serving.export import export_run, metrics_of

        if self.catalogue.new:
            raise ValueError("export: items that came after training are not kept; export the run as it was loaded")
        given = {"index": index, "onnx": onnx, "licence": licence, "push": push}
        try:
            settings = Export.model_validate(given)
        except ValidationError as error:
            raise ConfigError(explain(error, given, "export")) from None
        return export_run(self._files, self.scorer, self.catalogue, settings, folder, metrics_of(self._files))

    # ------------------------------------------------------------ histories in, frames out

    def _read(self, histories: Iterable[object]) -> tuple[list[History], bool]:
        """Dense histories, and whether one was given and not a list of them; unknown ids are told."""
        given = list(histories) if has_order(histories) else []
        odd = [one for one in given if is_list(one) and not has_order(one)] if given else [histories]
        if odd and not has_order(odd[0]):
            raise TypeError(
                f"a history is a list of item ids, oldest first, e.g. ['SKU1', 'SKU7'] (got {shown(odd[0])})"
            )
        nested = [is_list(one) for one in given]
        if any(nested) and not all(nested):
            wrong = nested.index(not nested[0])
            raise TypeError(f"give one history or a list of histories, not a mixture (place {wrong}: {given[wrong]!r})")
        single = not any(nested)
        known, unknown = list[History](), list[str]()
        for one in [given] if single else given:
            assert isinstance(one, Iterable)
            history = list(one)
            check_history(history)
            ids, strangers = self.catalogue.find(history)
            known.append(ids)
            unknown += strangers
        if unknown:
            warnings.warn(f"{self.catalogue.unknown_message(unknown)}; left out", UnknownItems, stacklevel=3)
        if reads_times(self.scorer):
            message = "it reads the times of histories, and is asked without: positions alone count"
            warnings.warn(f"{self.run.path}: {message}", NoTimes, stacklevel=3)
        return known, single

    def _tell_empty(self, batch: Sequence[History]) -> None:
        empty = [number for number, history in enumerate(batch) if not len(history)]
        if not empty:
            return
        several = f"{len(empty)} of {len(batch)} histories (the first is number {empty[0]})"
        message = f"no known item in {several if len(batch) > 1 else 'the history'}: popular items are recommended"
        warnings.warn(message, NoHistory, stacklevel=3)

    def _allowed(self, items: Iterable[object] | None, attribute: Mapping[str, object] | None) -> Mask | None:
        if items is None and attribute is None:
            return None
        mask = np.ones(len(self.catalogue) + 1, bool)
        if items is not None:
            check_stock(items)
            chosen, unknown = self.catalogue.among(items)
            mask &= chosen
            if unknown:
                warnings.warn(f"items: {self.catalogue.unknown_message(unknown)}; left out", UnknownItems, stacklevel=3)
        if attribute is not None:
            check_attributes(attribute)
            mask &= self.catalogue.having(attribute)
        if not mask[1:].any():
            of = "" if items is None else " of `items`"
            having = "" if attribute is None else f" has the attributes {dict(attribute)}"
            raise ValueError(f"nothing to choose from: no item{of}{having or ' is in the catalogue'}")
        return mask

    def _vectors(self, method: str) -> VectorScorer:
        if not isinstance(self.scorer, VectorScorer):
            problem = f"{method}: {self.run.system} has no vectors of items and histories"
            raise ValueError(f"{problem}; `recommend` works all the same")
        return self.scorer

    def _frame(self, ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> pd.DataFrame:
        catalogue = self.catalogue
        return pd.DataFrame(
            {
                "item": pd.Series([catalogue.raw_ids[number] for number in ids], dtype="str"),
                "title": pd.Series([catalogue.titles[number] for number in ids], dtype="str"),
                "score": scores,
            }
        )


def _of_new(name: str, rows: npt.ArrayLike, new: Mask) -> npt.NDArray[np.float32]:
    """The rows of a table (products, width) that are of new items (products,)."""
    given = numbers(name, rows)
    if given.shape[:1] != new.shape:
        raise ValueError(f"vectors of table {name!r}: expected {len(new)} rows, one a product (got {given.shape})")
    return given[new]


def load(folder: str | Path, device: str = "auto") -> Recommender:
    """A finished run, ready to use: see `tessera.load`."""
    return load_from(run_files(folder), device)


def load_from(files: RunFiles, device: str = "auto") -> Recommender:
    """A finished run of these files."""
    catalogue = read_catalogue(files.items, files.popularity())
    run = files.run
    if run.method.ONLY_JUDGED:
        raise ValueError(f"{run.path}: is only judged: it is a file of another program, and reads no histories")
    run = run.on(device)
    # a network starts with random weights, and training computes in one order: the caller's own stay as they were
    with torch.random.fork_rng(), same_modes():
        scorer = load_scorer(files.model, run, catalogue.popularity, files.inputs)
    return Recommender(files, scorer, catalogue)
