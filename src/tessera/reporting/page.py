"""The kit of report pages, whatever the task: one HTML file that needs no network, its frame, parts and filters.

A task brings a `Section` a dataset and a template of it. `page.html` is the frame, `parts.html` holds what they share.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import yaml
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from tessera import __version__
from tessera.artifacts.files import write_text
from tessera.artifacts.logs import duration
from tessera.artifacts.shown import masked, one_line, shown_config, visible
from tessera.reporting import plots, rule_graph
from tessera.reporting.codes import CODE_COLUMNS
from tessera.reporting.costs import read_costs
from tessera.reporting.plots import Plot
from tessera.reporting.runs import label
from tessera.settings.reporting import Report

_SECTIONS = (
    *("datasets", "models", "captions", "tables", "systems", "backbones", "loss", "training"),
    *("evaluation", "significance", "report", "experiment"),
)
_MOST = 200_000
"""Most characters of anything on the page."""
_MOST_OF_CONFIG = 2000
"""Most characters of one text of the config."""
_MOST_OF_COMMAND = 500
_MOST_OF_SUMMARY = 300
_PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "numpy", "pyarrow", "polars", "scipy", "altair"),
    *("snakemake", "pydantic"),
)


@dataclass(frozen=True)
class Made:
    """When a page was made, by which code and by which command; empty where it is not known."""

    date: str = ""
    commit: str = ""
    command: str = ""

    def lines(self) -> list[tuple[str, str]]:
        """What is known, by name."""
        pairs = [(name, one_line(masked(text), _MOST_OF_COMMAND)) for name, text in vars(self).items()]
        return [(name, text) for name, text in pairs if text]


NOT_TOLD = Made()


def made_now(command: str) -> Made:
    """This minute, and the commit of the code that runs, marked where files differ from it.

    Args:
        command: what the reader of the page would type to make it again.
    """
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = ""  # installed as a package, or there is no git
    return Made(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", commit, command)


class Section(Protocol):
    """Everything that the page says of one dataset."""

    @property
    def name(self) -> str:
        """The dataset."""

    @property
    def summary(self) -> str:
        """The answer in one sentence, for previews of links; empty where there is none."""

    @property
    def drawn(self) -> list[Plot]:
        """All of its plots, for files of their own."""


def write_page(
    output: str | Path,
    template: str,
    report: Report,
    sections: Sequence[Section],
    config: Mapping[str, Any],
    results: Path,
    known: Mapping[str, Any],
    made: Made = NOT_TOLD,
) -> None:
    """Write the page, and each of its plots to `plots/<dataset>/` beside it.

    Args:
        template: what is shown of a section: a file of this folder.
        sections: one a dataset.
        config: the whole config, shown as it is but for passwords in URLs and texts of great length.
        results: the folder of all artifacts.
        known: functions and constants that the template uses.
        made: when, by which code and by which command.
    """
    graph = results / "report" / "rulegraph.mmd"
    html = _render(
        template,
        known,
        report=report,
        sections=sections,
        costs=read_costs(results / "benchmarks", [section.name for section in sections]),
        graph=Markup(rule_graph.svg(graph.read_text(encoding="utf-8"))) if graph.is_file() else "",
        config=config_text(config),
        versions=versions(),
        made=made.lines(),
        summary=one_line(" ".join(filter(None, (section.summary for section in sections))), _MOST_OF_SUMMARY),
    )
    for section in sections:
        for plot in section.drawn:
            write_text(Path(output).parent / "plots" / section.name / f"{plot.name}.svg", plot.standalone())
    write_text(output, html)


def versions() -> list[tuple[str, str]]:
    """Versions of Tessera, Python and the packages that matter to numbers."""
    numbers = [("tessera", __version__), ("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            numbers.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return numbers


def config_text(config: Mapping[str, Any]) -> str:
    """The config as YAML, the sections in the order of the documentation, short lists on one line.

    Passwords in URLs are masked, and texts of great length are cut.
    """
    known = shown_config(config, _MOST_OF_CONFIG)
    ordered = {key: known[key] for key in dict.fromkeys((*_SECTIONS, *known)) if key in known}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def seconds_text(value: float) -> str:
    """Seconds as people say them."""
    return f"{value:.1f} s" if value < 10 else duration(value)


def _finished(value: Any) -> Any:
    """What is shown of a value: of a text that is not made here, nothing that is not seen, and not without end."""
    return visible(value, _MOST) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_uri(value: str) -> Markup:
    """A picture that was made here."""
    if not value.startswith("data:image/"):
        raise ValueError(f"{value[:40]!r} is no picture")
    return Markup(value.replace('"', ""))


def _render(template: str, known: Mapping[str, Any], **context: Any) -> str:
    folder = files("tessera.reporting")
    names = ("page.html", "parts.html", template, "page.css", "page.js")
    texts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in names}
    # every value is escaped unless it is Markup made here
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finished,
        loader=DictLoader({name: text for name, text in texts.items() if name.endswith(".html")}),
    )  # fmt: skip
    environment.globals |= {"contents": _place_of_contents, "label": label, "code_columns": CODE_COLUMNS, **known}
    environment.filters |= {"seconds": seconds_text, "safe_svg": Markup, "safe_json": Markup, "data_uri": _data_uri}
    light = Markup("".join(f"{name}:{colour};" for name, colour in plots.LIGHT.items()))
    css, script = Markup(texts["page.css"]), Markup(texts["page.js"])
    html = environment.get_template(template).render(css=css, light=light, script=script, **context)
    return re.sub(_PLACE, lambda place: _contents(html, place[1]), html)


_PLACE = r"<!--contents ([\w-]+)-->"


def _place_of_contents(section: str) -> Markup:
    """Where the contents of a section will stand; what it holds is known when all of it is written."""
    return Markup(f"<!--contents {section}-->")


def _contents(html: str, section: str) -> str:
    """Links to the headings of a section. Texts of data are escaped, so only the templates make headings."""
    headings = re.findall(rf'<h([34]) id="({re.escape(section)}-[^"]+)">(.*?)</h\1>', html)
    links = "".join(f'<li class="deep-{deep}"><a href="#{anchor}">{text}</a></li>' for deep, anchor, text in headings)
    return f'<nav class="contents" aria-label="Contents of this section"><ul>{links}</ul></nav>' if links else ""
