"""The tutorial notebook runs from its first cell to its last, and is kept with the outputs of these cells."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tiny_project import ROOT

pytestmark = pytest.mark.workflow

NOTEBOOK = ROOT / "docs/tutorial.ipynb"
Outputs = list[list[tuple[str, tuple[str, ...]]]]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: Any) -> Outputs:
    """What each cell shows, in kind: numbers differ from one kind of processor to another."""
    shown = [[out for out in cell.outputs if out.get("name") != "stderr"] for cell in code_cells(notebook)]
    return [[(out.output_type, tuple(sorted(out.get("data", {})))) for out in outputs] for outputs in shown]


@pytest.fixture(scope="module")
def kept() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_runs_and_shows_what_it_is_kept_with(kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel", reason="the extra dev is not installed")
    client = pytest.importorskip("nbclient", reason="the extra dev is not installed")
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    # the kernel is this Python, whatever kernels the machine has
    spec = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: spec)
    monkeypatch.setenv("TESSERA_TUTORIAL", str(tmp_path / "tutorial"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = nbformat.from_dict(kept)
    for cell in code_cells(again):
        cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client.NotebookClient(again, timeout=900, kernel_name="python3", resources=resources).execute()
    assert kinds(again) == kinds(nbformat.read(NOTEBOOK, as_version=4))
    (table,) = (out.data["text/html"] for cell in code_cells(again) for out in cell.outputs
                if "NDCG@10" in out.get("data", {}).get("text/html", ""))  # fmt: skip
    scores = dict(re.findall(r"<th>(popular|words)</th>(?:(?!</tr>).)*<td>([\d.]+)</td>\s*</tr>", table, re.DOTALL))
    assert float(scores["words"]) > 2 * float(scores["popular"])
    assert (tmp_path / "tutorial/results/tea/report/index.html").is_file()


def test_it_is_kept_as_executed(kept: Any) -> None:
    cells = code_cells(kept)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2
    text = NOTEBOOK.read_text()
    paths = r"(?<![\w.:/])/(?:home|root|tmp|mnt|work)/"  # of the machine that it was executed on
    assert not re.search(paths, text)
    assert NOTEBOOK.stat().st_size < 200_000


def test_its_links_lead_somewhere(kept: Any) -> None:
    text = "\n".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) >= 4
    for link in links:
        assert (NOTEBOOK.parent / link).exists(), link
    for page in ("README.md", "docs/use.md"):
        assert "tutorial.ipynb" in (ROOT / page).read_text(), page
