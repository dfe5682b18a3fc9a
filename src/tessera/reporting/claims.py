"""Claims of a config, tested over users: differences, intervals, p-values and verdicts, as files and for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from tessera.artifacts.files import file_digest, write_text
from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import CLAIMS, describe, read_table, write_table
from tessera.evaluation.significance import LEAST_USERS, enough_resamples, holm, least_p, smallest_effect, told_p
from tessera.reporting.formats import MOST, escape_markdown
from tessera.reporting.runs import Entry, Run
from tessera.settings.claims import Claim
from tessera.settings.evaluation import Significance

R = TypeVar("R", bound=Run)

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
POWER = 0.8


@dataclass(frozen=True)
class Tested:
    """A claim and what became of it on one dataset."""

    dataset: str
    name: str
    better: str
    than: str
    metric: str
    at_least: float
    better_mean: float | None
    """None where no test user has such a target."""
    than_mean: float | None
    difference: float | None
    low: float | None
    """Interval of the difference, of this claim alone."""
    high: float | None
    p: float
    """That the difference is `at_least`."""
    p_holm: float
    least_p: float
    """The least corrected p that the resamples can tell; 0 of exact tests."""
    detectable: float | None
    """The smallest distance from `at_least` that a test of this family sees with a power of 80 %."""
    users: int
    better_seeds: int
    than_seeds: int
    verdict: str

    @property
    def told_p(self) -> str:
        """The corrected p as it is printed."""
        return told_p(self.p_holm, self.least_p)

    @property
    def told_difference(self) -> str:
        """The difference with its interval."""
        if self.difference is None:
            return ""
        interval = f" ({self.low:+.4f} to {self.high:+.4f})" if self.low is not None and self.high is not None else ""
        return f"{self.difference:+.4f}{interval}"

    @property
    def said(self) -> str:
        """What is claimed, in words."""
        by = f" by at least {self.at_least:g}" if self.at_least > 0 else ""
        worse = f"at most {-self.at_least:g} worse than" if self.at_least < 0 else "better than"
        return f"{self.better} is {worse} {self.than}{by} in {self.metric}"


@dataclass(frozen=True)
class ClaimTable:
    """All claims of a config on one dataset."""

    dataset: str
    claims: list[Tested]
    significance: Significance
    of_users: bool = True
    """Whether metrics are means over users; of others, such as an AUC, whole resamples of users are compared."""

    def notes(self) -> list[str]:
        """How the claims were tested: what a reader needs to judge the verdicts."""
        rule, count = self.significance, len(self.claims)
        test = {"randomization": "randomisation", "bootstrap": "bootstrap", "t_test": "t-test"}[rule.method]
        resamples = enough_resamples(rule, count)
        drawn = "" if rule.method == "t_test" else f" ({resamples:,} resamples)"
        if any(0 < claim.users < LEAST_USERS for claim in self.claims):
            few = "by all signs" if self.of_users else "nothing"
            drawn += f", of fewer than {LEAST_USERS} users {few},"
        averaged = "seeds averaged for each user" if self.of_users else "seeds averaged in every resample"
        error, spread = "s / √users", "s the standard deviation of the differences over users"
        if not self.of_users:
            error, spread = "e", "e the standard deviation of the difference over the resamples"
        few = " (undecided where fewer than ten users differ, and would have to)" if self._at_least else ""
        unknown = any(claim.detectable is None and claim.difference is not None for claim in self.claims)
        lacking = "; none where the users are too few to see anything, or all differ alike" if unknown else ""
        return [
            f"paired {test} over users{drawn} of the difference less what is claimed{few}; p after Holm's correction "
            f"of {count} claim{'' if count == 1 else 's'}; {averaged}",
            f"holds: above what is claimed with p ≤ {rule.level:g}; does not hold: below it with such a p; "
            "undecided: else",
            f"interval: {100 * (1 - rule.level):g} % paired bootstrap over users, of each claim alone",
            f"smallest effect: (z(1 - {rule.level:g} / {2 * count}) + z({POWER:g})) {error}, with {spread}: what this "
            f"test would have seen four times in five{lacking}",
        ]

    @property
    def _at_least(self) -> bool:
        """Whether of means over users something other than being better is claimed."""
        return self.of_users and any(claim.at_least for claim in self.claims)


@dataclass(frozen=True)
class Measure:
    """What the runs say of a claim, before it is one of several."""

    better: Entry[Any]
    than: Entry[Any]
    better_mean: float | None
    """None where it is not known."""
    than_mean: float | None
    difference: float | None
    """How much better the first is: of a metric of which less is better, how much less."""
    users: int
    interval: tuple[float, float] | None = None
    """Of the difference, over users."""
    p: float = 1.0
    """That the difference is what is claimed."""
    error: float | None = None
    """Standard error of the difference."""


def row_of(rows: Sequence[Entry[R]], name: str) -> Entry[R]:
    """The row of a name; settings have made sure that there is one."""
    return next(entry for entry in rows if name in (entry.name, entry.system))


def judged(
    dataset: str,
    claims: Sequence[Claim],
    measures: Sequence[Measure],
    significance: Significance,
    *,
    of_users: bool = True,
) -> ClaimTable:
    """The verdicts on measured claims, which are one Holm family.

    Args:
        of_users: whether metrics are means over users.
    """
    count = len(claims)
    corrected = holm(np.array([measure.p for measure in measures])).tolist()
    tested = [_tested(dataset, claim, measure, p, significance, count)
              for claim, measure, p in zip(claims, measures, corrected, strict=True)]  # fmt: skip
    return ClaimTable(dataset, tested, significance, of_users)


def _tested(
    dataset: str, claim: Claim, measure: Measure, corrected: float, significance: Significance, count: int
) -> Tested:
    low, high = measure.interval or (None, None)
    seen = None if measure.error is None else smallest_effect(measure.error, significance.level / count, POWER)
    return Tested(
        dataset, claim.name, measure.better.name, measure.than.name, claim.metric, claim.at_least, measure.better_mean,
        measure.than_mean, measure.difference, low, high, measure.p, corrected,
        least_p(significance, count, measure.users), seen, measure.users, len(measure.better.runs),
        len(measure.than.runs), verdict(measure.difference, corrected, claim.at_least, significance.level),
    )  # fmt: skip


def verdict(difference: float | None, p: float, at_least: float, level: float) -> str:
    """What becomes of a claim: `holds`, `does not hold` or `undecided`.

    Both ways by the corrected p alone: the interval is of one claim, and of many some lie below by chance.

    Args:
        difference: of the means; None where there is no user.
        p: corrected, that the difference is `at_least`.
    """
    if difference is None or p > level or difference == at_least:
        return UNDECIDED
    return HOLDS if difference > at_least else FAILS


def write(table: ClaimTable, cases: Sequence[str | Path], paths: Mapping[str, str | Path]) -> None:
    """Write the claims as `parquet`, `csv` and `md`.

    Args:
        cases: the files of all runs that hold what each test case got.
    """
    long = pa.Table.from_pylist([vars(claim) for claim in table.claims], CLAIMS)
    inputs = {str(Path(case).parent): file_digest(case) for case in cases}
    tests = {"significance": table.significance.model_dump(mode="json"), "of_users": table.of_users}
    settings = {"dataset": table.dataset, **tests}
    write_table(paths["parquet"], long, "claims", settings, inputs)
    out = io.StringIO()
    writer = csv.DictWriter(out, CLAIMS.names, lineterminator="\n")
    writer.writeheader()
    for claim in table.claims:
        shown = {key: one_line(value, MOST) if isinstance(value, str) else value for key, value in vars(claim).items()}
        writer.writerow(shown)
    write_text(paths["csv"], out.getvalue())
    write_text(paths["md"], markdown(table))


def read(path: str | Path) -> ClaimTable:
    """Written claims; nothing is tested again."""
    made = describe(path)["settings"]
    claims = [Tested(**row) for row in read_table(path, "claims").to_pylist()]
    return ClaimTable(
        made["dataset"], claims, Significance.model_validate(made["significance"]), made.get("of_users", True)
    )


HEADS = ("claim", "verdict", "what is claimed", "difference", "p", "smallest effect", "users")


def cells(claim: Tested) -> list[str]:
    """A row as it is printed, under `HEADS`."""
    seen = "" if claim.detectable is None else f"{claim.detectable:.4f}"
    return [claim.name, claim.verdict, claim.said, claim.told_difference, claim.told_p, seen, f"{claim.users:,}"]


def markdown(table: ClaimTable) -> str:
    """The claims for GitHub, and under them how they were tested."""
    lines = [f"### {escape_markdown(table.dataset)}: claims", "", f"| {' | '.join(HEADS)} |"]
    lines.append("|" + "---|" * 3 + "---:|" * (len(HEADS) - 3))
    lines += [f"| {' | '.join(map(escape_markdown, cells(claim)))} |" for claim in table.claims]
    return "\n".join([*lines, "", "; ".join(map(escape_markdown, table.notes())) + ".", ""])
