"""What semantic IDs are like: how their codes are used, what they keep of the table, and whether they mean anything.

Everything is told part by part. Nothing of a held-out interaction is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tessera.artifacts.codes import Part, SemanticIds, read_codes
from tessera.artifacts.files import write_json
from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError
from tessera.data.dataset import Dataset, load_dataset
from tessera.evaluation.orderings import Case, order_agreement, training_cases
from tessera.evaluation.purity import categories, describe_purity
from tessera.evaluation.spectrum import describe_spectrum
from tessera.quantization.conflicts import collisions, strings

if TYPE_CHECKING:
    from tessera.quantization.base import PartQuantizer
    from tessera.quantization.vectors import PartVectors

Ints = NDArray[np.int64]

_CHUNK = 8192
"""Rows in 64 bits at a time."""


def describe_codes(codes: Ints, part: Part) -> dict[str, Any]:
    """How the codes of one part are used.

    Args:
        codes: (n, levels) of the items that have the part.
    Returns:
        `items`, `colliding` (items less different strings), `collision_rate` (that over items), `shared` (items that
        share their string), `largest_group`, `groups` (size -> groups), the same without the extra level under
        `meaningful_...` where there is one, and `levels`: for each `level` its `size`, `used`, `dead`, `perplexity`
        (exp of the entropy of the codes), `counts` (items a used code, most first) and, where a level refines the one
        before, `prefixes` (different strings up to it).
    """
    description: dict[str, Any] = {"items": len(codes), **_groups(codes)}
    if part.extra:
        description |= {f"meaningful_{key}": value for key, value in _groups(codes[:, :-1]).items()}
    description["levels"] = [_level(codes, level, size, part) for level, size in enumerate(part.sizes)]
    return description


def _groups(codes: Ints) -> dict[str, Any]:
    sizes = np.bincount(strings(codes))
    colliding = collisions(codes)
    return {
        "colliding": colliding,
        "collision_rate": colliding / len(codes) if len(codes) else 0.0,
        "shared": int(sizes[sizes > 1].sum()),
        "largest_group": int(sizes.max(initial=0)),
        "groups": {str(size): count for size, count in sorted(Counter(sizes.tolist()).items())},
    }


def _level(codes: Ints, level: int, size: int, part: Part) -> dict[str, Any]:
    counts = np.bincount(codes[:, level], minlength=size)
    used = np.sort(counts[counts > 0])[::-1]
    shares = used / used.sum()
    description: dict[str, Any] = {
        "level": level + 1,
        "size": size,
        "used": len(used),
        "dead": size - len(used),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
        "counts": used.tolist(),
    }
    if part.ordered:
        description["prefixes"] = int(strings(codes[:, : level + 1]).max(initial=-1)) + 1
    return description


def residual_ratios(latent: np.ndarray, codebooks: Sequence[np.ndarray], codes: Ints) -> list[float]:
    """What is left of latent vectors after each level, as a share of their norm: |r_l| / |z| (Frobenius).

    Args:
        latent: (n, width) vectors as the quantiser's levels see them.
        codebooks: (codes, width) a level each, each refining the one before.
        codes: (n, levels or more).
    """
    left = latent.astype(np.float64)
    whole = float(np.linalg.norm(left)) or 1.0  # zeros leave nothing
    ratios = []
    for level, codebook in enumerate(codebooks):
        left = left - codebook[codes[:, level]]
        ratios.append(float(np.linalg.norm(left)) / whole)
    return ratios


def describe_reconstruction(vectors: np.ndarray, decoded: np.ndarray, seed: int = 0) -> dict[str, float]:
    """How near decoded vectors are to those that were quantised, both (n, dim).

    Returns:
        `mse` (mean over items and dimensions), `unexplained` (squared error over that of the mean vector), `cosine`
        (mean over items), and `cosine_by_chance`: the same against the reconstruction of another item. A decoder
        that knows the cloud but not the items has both alike.
    """
    middle = vectors.mean(0, dtype=np.float64)
    ring = np.random.default_rng(seed).permutation(len(vectors))  # nobody is paired with itself
    error = spread = cosine = by_chance = 0.0
    for start in range(0, len(vectors), _CHUNK):
        rows, made = (array[start : start + _CHUNK].astype(np.float64) for array in (vectors, decoded))
        error += float(np.square(rows - made).sum())
        spread += float(np.square(rows - middle).sum())
        cosine += _cosines(rows, made)
        mine, others = ring[start : start + _CHUNK], np.roll(ring, 1)[start : start + _CHUNK]
        by_chance += _cosines(vectors[mine].astype(np.float64), decoded[others].astype(np.float64))
    return {
        "mse": error / vectors.size,
        "unexplained": error / spread if spread else 0.0,
        "cosine": cosine / len(vectors),
        "cosine_by_chance": by_chance / len(vectors),
    }


def _cosines(first: np.ndarray, second: np.ndarray) -> float:
    """The sum of the cosines of rows; that of a row of zeros is 0."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float((np.einsum("nd,nd->n", first, second) / np.where(norms == 0, 1, norms)).sum())


def describe_meaning(codes: Ints, part: Part, labels: Mapping[str, Ints]) -> dict[str, list[dict[str, float]]]:
    """attribute -> how well prefixes (single codes where levels have no order) agree with it, a level each.

    Args:
        codes: (items + 1, levels) of the part, negative where an item lacks it.
        labels: attribute -> (items + 1,) categories, -1 where an item has none.
    """
    purities = {}
    for name, values in labels.items():
        items = np.flatnonzero((values >= 0) & (codes[:, 0] >= 0))
        rows = codes[items]
        if len(items):
            levels = [strings(rows[:, 0 if part.ordered else level : level + 1]) for level in range(part.meaningful)]
            purities[name] = describe_purity(levels, values[items])
    return purities


def describe_kept(
    vectors: PartVectors, quantizer: PartQuantizer, codes: Ints, items: Ints, cases: Sequence[Case]
) -> dict[str, Any]:
    """What the codes of a part keep of its table.

    Several tables side by side are compared on their common scale, one table as it is.

    Args:
        codes: (items + 1, levels) of the part.
        items: (n,) those that have the part.
        cases: targets and histories of training, of items that have the part.
    Returns:
        `reconstruction`; `order`: Kendall's tau of `latent` sums and `reconstruction` against the table; `spectrum` of
        `table`, `latent` and `reconstruction`; and `residual_ratios` where levels refine each other.
    """
    own = vectors.vectors[items]
    chosen = codes[items]
    encoded, latent, decoded = _run(quantizer, own, chosen)
    if len(vectors.widths) > 1:
        scale = quantizer.scaling.scale.numpy()
        own, decoded = own / scale, decoded / scale
    description: dict[str, Any] = {
        "reconstruction": describe_reconstruction(own, decoded),
        "spectrum": {
            "table": describe_spectrum(own),
            "latent": describe_spectrum(latent),
            "reconstruction": describe_spectrum(decoded),
        },
    }
    place = np.zeros(len(codes), np.int64)
    place[items] = np.arange(len(items))
    local = [(int(place[target]), place[history]) for target, history in cases]
    description["order"] = {
        "latent": order_agreement(local, own, latent),
        "reconstruction": order_agreement(local, own, decoded),
    }
    if quantizer.ordered:
        books = [book.numpy() for book in quantizer.codebooks]
        sums = sum(book[chosen[:, level]] for level, book in enumerate(books))
        # a quantiser of a folder of your own may look codes up in another way than as the sum of their vectors
        if np.allclose(sums, latent, atol=1e-4):
            description["residual_ratios"] = residual_ratios(encoded, books, chosen)
    return description


def _run(quantizer: PartQuantizer, vectors: np.ndarray, codes: Ints) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latent vectors before and after quantisation, and reconstructions: (n, width) twice and (n, dim)."""
    import torch

    from tessera.quantization.base import CHUNK

    blocks: list[tuple[np.ndarray, ...]] = []
    with torch.no_grad():
        for start in range(0, len(vectors), CHUNK):
            rows, own = (torch.from_numpy(array[start : start + CHUNK]) for array in (vectors, codes))
            latent = quantizer.look_up(own)
            blocks.append(tuple(part.numpy() for part in (quantizer.encode(rows), latent, quantizer.decode(latent))))
    encoded, latents, decoded = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    # one reconstruction a string: products of matrices may round equal rows differently, and ties would be lost
    labels = strings(codes[:, : len(quantizer.sizes)])
    return encoded, latents, decoded[np.unique(labels, return_index=True)[1]][labels]


def describe_health(codes: Path, tables: Mapping[str, Path], data: Path, output: Path) -> None:
    """Write what semantic IDs are like as JSON: `catalogue` and `parts`, each as the functions above describe it.

    Of given codes, which no quantiser stands behind, their use and their meaning are told.

    Args:
        codes: codes.parquet, with the quantiser's `model.safetensors` beside it.
        tables: the item tables that were quantised, in their order; none for given codes.
        data: folder of the dataset.
    Raises:
        ArtifactError: a file is missing or does not belong to the others.
    """
    dataset = load_dataset(data)
    ids = read_codes(codes, dataset.n_items)
    labels = categories(data / "items.parquet")
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(ids.parts):
        rows = ids.of(number)
        parts.append(
            {
                "name": part.name,
                "sizes": list(part.sizes),
                "ordered": part.ordered,
                "extra": part.extra,
                **describe_codes(rows[ids.present(number)], part),
                "purity": describe_meaning(rows, part, labels),
            }
        )
    if tables:
        for number, kept in enumerate(_kept(codes, ids, tables, dataset)):
            parts[number] |= kept
    for described in parts:
        log.info(
            "%s: %d items, collision rate %.4f", described["name"], described["items"], described["collision_rate"]
        )
    write_json(output, {"catalogue": dataset.n_items, "parts": parts})


def _kept(codes: Path, ids: SemanticIds, tables: Mapping[str, Path], dataset: Dataset) -> list[dict[str, Any]]:
    # given codes need no torch
    from tessera.quantization.base import load_quantizer
    from tessera.quantization.vectors import read_parts

    quantizer = load_quantizer(codes.with_name("model.safetensors"))
    vectors = read_parts(tables, dataset.n_items, together=len(ids.parts) == 1)
    if [part.name for part in vectors] != [part.name for part in ids.parts]:
        raise ArtifactError(
            f"{codes}: was made of {[part.name for part in ids.parts]}, but the tables are {list(tables)}"
        )
    descriptions = []
    for number, part in enumerate(vectors):
        present = ids.present(number)
        lacking = present & ~part.present
        if lacking.any():
            raise ArtifactError(f"{codes}: item {np.flatnonzero(lacking)[0]} has codes but no row in {part.name!r}")
        items = np.flatnonzero(present)
        cases = training_cases(dataset, present)
        descriptions.append(describe_kept(part, quantizer.parts[number], ids.of(number), items, cases))
    return descriptions
