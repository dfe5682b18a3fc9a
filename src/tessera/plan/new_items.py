"""Who can list items that came after training, known before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tessera.settings.recipes.base import NO_ROW
from tessera.settings.references import INTERESTS
from tessera.settings.runs import Run

if TYPE_CHECKING:
    from tessera.plan.graph import Plan

KEY = "recommend.new_items"


def unplaced(plan: Plan, path: str) -> str | None:
    """Why lists of a run cannot hold the new items of the config, and of which runs they can; None where they can."""
    if plan.config.recommend.new_items is None or (reason := _reason(plan, plan.trained[path])) is None:
        return None
    able = dict.fromkeys(run.row for run in plan.runs if _reason(plan, run) is None)
    who = f"those that can take them: {', '.join(able)}" if able else "a system with `items: {table: NAME}` can"
    return f"{KEY}: {reason}, so new items cannot be placed; {who}"


def _reason(plan: Plan, run: Run) -> str | None:
    for part in run.members or [run]:
        whose = run.row if part is run else f"{run.row} has a member, {part.row}, that"
        if not part.takes_new:
            return f"{whose} knows an item by training on it alone"
        recipes = {name: plan.config.tables[name] for name in part.tables}
        rows = {name: recipe for name, recipe in recipes.items() if INTERESTS not in recipe.offers()}
        if rows and not any(recipe.takes_new for recipe in rows.values()):
            tables = ", ".join(f"{name!r} of recipe {recipe.recipe}" for name, recipe in rows.items())
            return f"{whose} reads {tables} alone, {NO_ROW}"
    return None
