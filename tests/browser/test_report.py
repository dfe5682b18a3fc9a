"""The report page as a reader meets it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

Opener = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Opener]:
    """Opens the page; afterwards nothing may have been complained about or fetched."""
    yield from _visit(browser, report)


@pytest.fixture
def visit_hostile(browser: Browser, hostile: Path) -> Iterator[Opener]:
    """The same for the page of hostile texts."""
    yield from _visit(browser, hostile)


def _visit(browser: Browser, report: Path) -> Iterator[Opener]:
    problems: list[str] = []
    contexts = []

    def opened(scheme: str = "light", width: int = 1280) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: None if _local(request.url, report) else problems.append(request.url))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def _local(url: str, report: Path) -> bool:
    return url.startswith(("data:", "blob:")) or url.partition("#")[0] == report.as_uri()


def column(page: Page, number: int) -> list[float]:
    cells = page.locator(f"#d-1 table.metrics tbody tr > :nth-child({number})")
    return [float(cells.nth(row).get_attribute("data-value") or "nan") for row in range(cells.count())]


def brightness(page: Page, selector: str, style: str) -> float:
    text = page.locator(selector).first.evaluate(f"node => getComputedStyle(node).{style}")
    red, green, blue = (int(value) / 255 for value in re.findall(r"\d+", text)[:3])

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


def contrast(page: Page, selector: str) -> float:
    """Of text on the page's or a card's ground (WCAG 2.1)."""
    text = brightness(page, selector, "color")
    grounds = [brightness(page, ground, "backgroundColor") for ground in ("body", "figure")]
    return min((max(text, g) + 0.05) / (min(text, g) + 0.05) for g in grounds)


def test_tables_sort_by_numbers_and_by_names(visit: Opener) -> None:
    page = visit()
    head = page.locator("#d-1 table.metrics thead th").nth(5)
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 6) == sorted(column(page, 6), reverse=True)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 6) == sorted(column(page, 6))
    page.locator("#d-1 table.metrics thead th button").first.click()
    assert head.get_attribute("aria-sort") == "none"
    names = page.locator("#d-1 table.metrics tbody th").all_inner_texts()
    assert names == sorted(names)
    # the other dataset's table is left alone
    assert page.locator('#d-2 table.metrics th[aria-sort="none"]').count() == 10
    assert page.locator('#d-2 table.metrics th[aria-sort="descending"]').inner_text().startswith("NDCG@10")


def test_tables_begin_with_few_columns_sorted_by_the_main_metric(visit: Opener) -> None:
    page = visit()
    table = page.locator("#d-1 table.metrics")
    heads = [text.strip(" ↓↕") for text in table.locator("thead th:visible").all_inner_texts()]
    assert heads == ["Run", "NDCG@10", "head NDCG@10", "tail NDCG@10", "Hit@10", "MRR", "coverage@10"]
    values = column(page, 2)
    assert values[:-1] == sorted(values[:-1], reverse=True)
    assert table.locator("tbody th").last.inner_text() == "oracle bound"  # a bound comes last, whatever it reaches
    assert values[-1] > values[0]
    button = page.locator("#d-1").get_by_role("button", name="All columns").first
    button.click()
    assert table.locator("thead th:visible").count() == 11
    page.locator("#d-1").get_by_role("button", name="Fewer columns").first.click()
    assert table.locator("thead th:visible").count() == 7


def test_tables_and_figures_can_be_taken_away(visit: Opener) -> None:
    """Copied as shown, saved whole, without a request to any network."""
    page = visit()
    section = page.locator("#d-1")
    section.get_by_role("button", name="Copy").first.click()
    section.get_by_role("button", name="Copied").first.wait_for()
    with page.expect_download() as saved:
        section.get_by_role("button", name="CSV").first.click()
    assert saved.value.suggested_filename == "metrics-on-bazaar.csv"
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0].startswith("Run,NDCG@10,head NDCG@10")
    assert len(lines[0].split(",")) == 11
    assert len(lines) == 6
    assert float(lines[1].split(",")[1]) == column(page, 2)[0]
    with page.expect_download() as saved:
        section.locator("figure").first.get_by_role("button", name="SVG").click()
    drawing = Path(saved.value.path()).read_text()
    assert drawing.startswith("<svg")
    assert "var(" not in drawing
    assert "#1d2330" in drawing


@pytest.mark.parametrize("width", [400, 1280, 2560])
def test_text_of_plots_can_be_read_and_nothing_is_cut(visit: Opener, width: int) -> None:
    page = visit(width=width)
    sizes = page.locator("figure svg").evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect().width / n.viewBox.baseVal.width * "
        "Math.min(...[...n.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize))))"
    )
    assert len(sizes) > 5
    assert min(sizes) >= 11.9
    cut = page.locator("#d-1 .scroll").evaluate_all(
        "nodes => nodes.filter(n => n.scrollWidth > n.clientWidth && getComputedStyle(n).overflowX != 'auto').length"
    )
    assert cut == 0


def test_the_theme_follows_the_reader_and_the_button(visit: Opener) -> None:
    light, dark = visit("light"), visit("dark")
    assert brightness(light, "body", "backgroundColor") > 0.8
    assert brightness(dark, "body", "backgroundColor") < 0.05
    ink = "getComputedStyle(document.querySelector('figure svg .role-axis-title text')).fill"
    assert light.evaluate(ink) != dark.evaluate(ink)
    dark.get_by_role("button", name="Light theme").click()
    assert brightness(dark, "body", "backgroundColor") > 0.8
    assert dark.evaluate(ink) == light.evaluate(ink)
    assert dark.get_by_role("button", name="Dark theme").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(visit: Opener, scheme: str) -> None:
    page = visit(scheme)
    for selector in ("h2", "td", ".sd", ".notes", ".up", ".down", "nav a", ".counts dt", ".item .meta"):
        assert contrast(page, selector) >= 4.5, selector


@pytest.mark.parametrize("width", [320, 380, 768, 1280])
def test_no_screen_scrolls_sideways(visit: Opener, width: int) -> None:
    page = visit(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # the table itself scrolls, its first column stays
    box = page.locator("#d-1 .scroll.box").first
    if width <= 768:
        assert box.evaluate("node => node.scrollWidth > node.clientWidth")
        first = page.locator("#d-1 table.metrics tbody th").first
        before = first.bounding_box()
        box.evaluate("node => node.scrollLeft = 200")
        after = first.bounding_box()
        assert before is not None
        assert after is not None
        assert after["x"] == pytest.approx(before["x"], abs=2)
        assert before["width"] >= 100


def test_titles_with_markup_are_text(visit: Opener) -> None:
    from reporting_world import EVIL

    page = visit()
    assert page.locator(".title", has_text="<script>").first.inner_text() == EVIL
    assert page.locator("script:not([type='application/json'])").count() == 1
    assert page.locator("img:not([src^='data:'])").count() == 0


@pytest.mark.parametrize("width", [320, 1280])
def test_hostile_texts_stay_in_their_places(visit_hostile: Opener, width: int) -> None:
    page = visit_hostile(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "\\u202egpj.exe" in page.locator(".item .title").first.inner_text()
    assert page.locator("img:not([src^='data:'])").count() == 0
    tallest = page.locator(".item, .user, figure").evaluate_all("nodes => Math.max(...nodes.map(n => n.offsetHeight))")
    assert tallest < 3000
    assert "cannot be read: 00" in page.locator(".broken").inner_text()


def test_pictures_are_shown(visit: Opener) -> None:
    page = visit()
    sizes = page.locator("img").evaluate_all("nodes => nodes.map(node => node.complete && node.naturalWidth)")
    assert len(sizes) > 40
    assert all(sizes)


def test_plots_tell_their_values(visit: Opener) -> None:
    page = visit()
    dot = page.locator('figure svg path[aria-label^="semantic/sasrec: NDCG@10"]').first
    dot.scroll_into_view_if_needed()
    dot.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    said = r"semantic/sasrec: NDCG@10 0\.\d{4} ± 0\.\d{4}, 0\.\d{4} to 0\.\d{4}"
    assert re.fullmatch(said, tip.inner_text())
    page.locator("h1").hover()
    assert tip.is_hidden()


def test_links_lead_to_their_sections(visit: Opener) -> None:
    page = visit()
    page.get_by_role("link", name="second-shop").click()
    top = page.locator("#d-2").evaluate("node => node.getBoundingClientRect().top")
    assert 0 < top < 200


def test_the_page_is_small_and_quick(visit: Opener, report: Path) -> None:
    assert report.stat().st_size < 8_000_000
    page = visit()
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert timing < 5000


def test_an_item_leads_to_its_neighbours_and_on(visit: Opener, report: Path) -> None:
    import json

    from reporting_world import EVIL

    page = visit()
    box = page.locator("#d-1 .explorer")
    title = box.locator(".chosen .title")
    diagnostics = report.parents[1] / "bazaar" / "diagnostics"
    near = {name: json.loads((diagnostics / f"{name}.json").read_text())["neighbours"] for name in ("text", "tuned")}

    search = box.get_by_label("Find an item")
    search.fill("12 THING")
    assert box.get_by_role("status").inner_text() == "1 of 40 items"
    box.locator(".found button").first.click()
    assert title.inner_text() == "Thing 12 – größer"
    for name, number in (("text", 0), ("tuned", 1)):
        lists = box.locator(".list").nth(number)
        assert lists.locator("h5").inner_text() == name
        ids = [item for item, _ in near[name]["12"]]
        names = [EVIL[:110] if i == 1 else "002" if i == 2 else f"Thing {i} – größer" for i in ids]
        assert lists.locator(".tile button").evaluate_all("nodes => nodes.map(node => node.title)") == names
        assert lists.locator(".tile .meta").first.inner_text() == f"{near[name]['12'][0][1]:.2f}"

    # on from a neighbour, by the keyboard, and back
    first = next(item for item, _ in near["text"]["12"] if item > 2)
    place = [item for item, _ in near["text"]["12"]].index(first)
    box.locator(".list").first.locator(".tile button").nth(place).focus()
    page.keyboard.press("Enter")
    assert title.inner_text() == f"Thing {first} – größer"
    box.get_by_role("button", name="Back").click()
    assert title.inner_text() == "Thing 12 – größer"
    box.get_by_role("button", name="Back").click()
    assert box.get_by_role("button", name="Back").is_disabled()

    # an item without a vector in one of the tables
    search.fill("007")
    box.locator(".found button").first.click()
    assert box.locator(".list").nth(1).inner_text().endswith("no vector of this item")
    assert box.locator(".list").first.locator(".tile").count() == 8
    search.fill("nothing like this")
    assert box.locator(".found li").count() == 0
    box.get_by_role("button", name="Random item").click()
    assert box.locator(".list").count() == 2


def test_the_explorer_shows_markup_as_text(visit: Opener) -> None:
    from reporting_world import EVIL

    page = visit()
    box = page.locator("#d-1 .explorer")
    box.get_by_label("Find an item").fill("<script>")
    box.locator(".found button").first.click()
    assert box.locator(".chosen .title").inner_text() == EVIL[:110]
    assert page.locator("img:not([src^='data:'])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_explorer_has_contrast_and_fits_a_phone(visit: Opener, scheme: str) -> None:
    page = visit(scheme, width=380)
    for selector in (".explorer .meta", ".explorer .pick label", ".explorer .tile .name", ".explorer .pick input"):
        assert contrast(page, selector) >= 4.5, selector
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.locator("#d-1 .explorer .found button").first.evaluate("node => node.offsetHeight") >= 44


def test_the_tree_of_codes_opens_level_by_level(visit: Opener, report: Path) -> None:
    from reporting_world import EVIL

    from tessera.artifacts.codes import read_codes

    page = visit()
    box = page.locator("#d-1 .codes")
    ids = read_codes(report.parents[1] / "bazaar" / "semantic_ids" / "plain" / "codes.parquet", 40).codes
    assert box.get_by_role("status").inner_text() == "39 items of 40, 3 levels of 3 × 3 × 3 codes"
    first = box.locator(".root > div > details")
    codes = [int(code) for code in first.locator("> summary .code").all_inner_texts()]
    counts = [int(text.split()[0]) for text in first.locator("> summary .size").all_inner_texts()]  # none is 1
    assert counts == [int((ids[:, 0] == code).sum()) for code in codes] == sorted(counts, reverse=True)
    assert box.locator(".tile").count() == 0, "nothing is made before it is opened"

    # down to items 4 and 5, which share their codes, by the keyboard alone
    where = first.filter(has=page.locator(f":scope > summary .code:text-is('{ids[4][0]}')"))
    for level in (1, 2, 3):
        summary = where.locator("> summary")
        summary.focus()
        page.keyboard.press("Enter")
        assert where.evaluate("node => node.open")
        if level < 3:
            inside = where.locator("> .inside > div > details")
            where = inside.filter(has=page.locator(f":scope > summary .code:text-is('{ids[4][level]}')"))
    names = where.locator("> .inside .tile .name").all_inner_texts()
    below = [item for item in range(1, 41) if ids[item][:3].tolist() == ids[4][:3].tolist()]
    assert {4, 5} <= set(below)
    assert names == [{1: EVIL[:110], 2: "002"}.get(item, f"Thing {item} – größer") for item in below]
    assert where.locator(".tile img").first.evaluate("node => node.naturalWidth") > 0, "the explorer's picture"

    # another recipe, and a part whose levels have no order
    box.get_by_label("Semantic IDs").select_option(label="modal: tuned")
    assert "no level refines another" in box.get_by_role("status").inner_text()
    assert box.locator(".root > div > details").count() == 4
    assert box.locator("details[open]").count() == 0


def test_large_nodes_come_a_page_at_a_time(browser: Browser, tmp_path: Path) -> None:
    """On a page of its own: 60 first codes, the last of them with 30 items that share all their codes."""
    import json
    from importlib.resources import files

    items = [[f"Thing {number}", str(number), 1, None] for number in range(90)]
    children = [[60, [32, 2, list(range(60, 90))]]] + [[code, [1, 0, [code]]] for code in range(60)]
    tree = {"recipe": "a", "part": "t", "sizes": [64], "ordered": True, "items": 92, "root": [95, 3, children]}
    data = json.dumps({"trees": [tree], "items": items, "catalogue": 95})
    script = files("tessera.reporting").joinpath("page.js").read_text(encoding="utf-8")
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><button id=theme></button><div id=tip hidden></div><section><div class=codes>"
        f"<script type='application/json'>{data}</script></div></section><script>{script}</script>",
        encoding="utf-8",
    )
    context = browser.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    branches = page.locator(".root > div > details")
    assert branches.count() == 24
    assert page.locator(".root > .notes").inner_text() == "3 codes more not on this page"
    more = page.locator(".root > .more")
    assert more.inner_text() == "24 more of 37"
    more.click()
    assert branches.count() == 48
    assert page.evaluate("document.activeElement.textContent").startswith("23")
    more.click()
    assert branches.count() == 61
    assert more.is_hidden()
    branches.first.locator("summary").click()
    inside = branches.first.locator(".inside")
    inside.locator(".tile").first.wait_for()  # `toggle` comes after the click has returned
    assert inside.locator(".tile").count() == 24
    assert inside.locator(".notes").inner_text() == "2 items more not on this page"
    inside.locator(".more").click()
    assert inside.locator(".tile").count() == 30
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tree_of_codes_has_contrast_and_fits_a_phone(visit: Opener, scheme: str) -> None:
    page = visit(scheme, width=380)
    box = page.locator("#d-1 .codes")
    opened = box.locator(".root > div > details").first
    while opened.count():
        opened.locator("> summary").click()
        opened = opened.locator("> .inside > div > details").first
    assert box.locator(".tile").count() > 0
    for selector in (".codes .code", ".codes .size", ".codes .notes", ".codes .tile .name", ".codes select"):
        assert contrast(page, selector) >= 4.5, selector
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert box.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert box.locator("summary").first.evaluate("node => node.offsetHeight") >= 44


def point(page: Page, table: str, item: int) -> tuple[float, float]:
    """Where an item stands on the screen, by the data of the map."""
    import json

    box = page.locator("#d-1 .atlas")
    data = json.loads(box.locator("script").evaluate("node => node.textContent"))
    (made,) = [one for one in data["tables"] if one["name"] == table]
    (place,) = [number for number, (_, id, _) in enumerate(data["items"]) if id == f"{item:03d}"]
    where = """node => {
      const { left, top } = node.getBoundingClientRect();
      return [left, top, node.clientWidth, node.clientHeight];
    }"""
    left, top, width, height = box.locator("canvas").evaluate(where)
    side = min(width, height) - 28
    x, y = made["x"][place] / 1000, made["y"][place] / 1000
    return left + (width - side) / 2 + x * side, top + (height - side) / 2 + (1 - y) * side


def painted(page: Page, x: float, y: float) -> list[int]:
    """The colour of the map at a point of the screen; no opacity where nothing is drawn."""
    return page.locator("#d-1 .atlas canvas").evaluate(
        """(canvas, [x, y]) => {
          const { left, top } = canvas.getBoundingClientRect();
          const copy = document.createElement("canvas");
          [copy.width, copy.height] = [canvas.width, canvas.height];
          const pen = copy.getContext("2d", { willReadFrequently: true });
          pen.drawImage(canvas, 0, 0);
          return [...pen.getImageData(Math.round(x - left), Math.round(y - top), 1, 1).data];
        }""",
        [x, y],
    )


def test_the_map_of_the_items_leads_to_them(visit: Opener) -> None:
    page = visit()
    box = page.locator("#d-1 .atlas")
    box.scroll_into_view_if_needed()
    assert box.get_by_role("status").inner_text().startswith("40 items; the first two principal components")
    assert box.get_by_label("Table").locator("option").all_inner_texts() == ["text", "tuned"]
    names = box.get_by_label("Colour").locator("option").all_inner_texts()
    assert names == ["popularity", "description", "first code of plain", "first code of modal"]
    x, y = point(page, "text", 12)
    assert painted(page, x, y)[3] > 150
    counts = [int(text) for text in box.locator(".legend .meta").all_inner_texts()]
    assert sum(counts) == 40

    page.mouse.move(x, y)
    hover = box.locator(".hover")
    assert hover.locator(".title").inner_text() == "Thing 12 – größer"
    assert hover.locator(".meta").inner_text().startswith("012 · ")
    assert hover.locator("img").evaluate("node => node.naturalWidth") > 0
    page.mouse.click(x, y)
    name = box.locator(".chosen .title").inner_text()
    assert name == hover.locator(".title").inner_text()

    # on to the neighbours, and to the codes
    box.get_by_role("button", name="Nearest items").click()
    assert page.locator("#d-1 .explorer .chosen .title").inner_text() == name
    box.get_by_role("button", name="Tree of codes").click()
    assert page.evaluate("document.activeElement.closest('.codes') !== null")
    assert page.locator("#d-1 .codes details[open] .tile .name", has_text=name).count() == 1

    # other colours, another table, where an item has no vector
    x, y = point(page, "text", 12)
    before = painted(page, x + 1, y)
    box.get_by_label("Colour").select_option(label="first code of plain")
    assert painted(page, x + 1, y) != before
    assert box.locator(".legend li").count() == 4, "three codes, and an item that has none"
    box.get_by_label("Table").select_option(label="tuned")
    assert box.get_by_role("status").inner_text().startswith("39 items; t-SNE")
    assert box.get_by_label("Colour").locator("option").last.inner_text() == "first code of modal"
    assert painted(page, *point(page, "tuned", 12))[3] > 150


def test_the_map_of_the_items_is_read_by_the_keyboard(visit: Opener) -> None:
    page = visit()
    box = page.locator("#d-1 .atlas")
    box.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    first = box.locator(".hover .meta").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert box.locator(".hover .meta").inner_text() != first
    page.keyboard.press("Enter")
    assert box.locator(".chosen .meta").inner_text() == box.locator(".hover .meta").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_of_the_items_has_contrast_and_fits_every_screen(visit: Opener, scheme: str) -> None:
    for width in (400, 2560):
        page = visit(scheme, width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in (".atlas .notes", ".atlas .legend .meta", ".atlas .legend li", ".atlas select"):
            assert contrast(page, selector) >= 4.5, selector
        page.locator("#d-1 .atlas canvas").scroll_into_view_if_needed()
        assert painted(page, *point(page, "text", 12))[3] > 150
    ground = brightness(page, ".atlas canvas", "backgroundColor")
    assert ground > 0.8 if scheme == "light" else ground < 0.05


def judged_by(report: Path, run: str) -> dict[int, float]:
    """User -> rank of the target, a cold one infinite."""
    from tessera.artifacts.tables import read_table

    rows = read_table(report.parents[1] / "bazaar" / "runs" / run / "evaluation.parquet", "evaluation").to_pylist()
    return {row["user"]: row["rank"] if row["popularity"] else float("inf") for row in rows}


def test_two_systems_side_by_side(visit: Opener, report: Path) -> None:
    from reporting_world import EVIL_USER, USERS

    page = visit()
    box = page.locator("#d-1 .pairs")
    names = ["semantic/sasrec", "id/sasrec", "id/gru4rec", "popular", "oracle"]
    assert box.get_by_label("System A").locator("option").all_inner_texts() == names
    chosen = [box.get_by_label(f"System {letter}").evaluate("node => node.selectedOptions[0].text") for letter in "AB"]
    assert chosen == ["semantic/sasrec", "id/sasrec"], "the best, and the baseline"

    one, other = (judged_by(report, f"{name}/seed-1") for name in chosen)
    kinds = {
        "all users": list(one),
        "A hits, B misses": [user for user in one if one[user] <= 10 < other[user]],
        "B hits, A misses": [user for user in one if other[user] <= 10 < one[user]],
        "both hit": [user for user in one if one[user] <= 10 and other[user] <= 10],
        "both miss": [user for user in one if one[user] > 10 and other[user] > 10],
    }
    show, users = box.get_by_label("Show"), box.get_by_role("combobox", name="User", exact=True)
    assert show.locator("option").all_inner_texts() == [f"{kind} ({len(own)})" for kind, own in kinds.items()]
    raw = {user: EVIL_USER if user == 1 else f"user-{user}" for user in range(1, USERS + 1)}
    for number, (kind, own) in enumerate(kinds.items()):
        show.select_option(index=number)
        texts = users.locator("option").all_inner_texts()
        assert [text.rpartition(": A ")[0] for text in texts] == [raw[user] for user in sorted(own)], kind
        assert box.get_by_role("status").inner_text().startswith(f"{kind}: {len(own)} of 80 test users; ")

    # one of them, whose target stands in one list and not in the other
    show.select_option(index=1)
    user = min(kinds["A hits, B misses"])
    lists = box.locator(".list")
    assert lists.nth(0).locator("h5").inner_text().startswith(f"User {raw[user]}")
    assert lists.nth(0).locator(".tile").last.locator(".mark").inner_text() == "target"
    for place, (letter, name, word, rank) in enumerate(
        (("A", names[0], "hit", one[user]), ("B", names[1], "miss", other[user])), 1
    ):
        said = "counts as a miss" if rank == float("inf") else f"target at rank {rank:g}"
        assert lists.nth(place).locator("h5").inner_text().split() == f"{letter}: {name} {word} {said}".split()
        assert lists.nth(place).locator(".tile").count() == 10
    assert lists.nth(1).locator(".tile.hit").count() == 1
    assert lists.nth(2).locator(".tile.hit").count() == 0
    assert box.locator("img").first.evaluate("node => node.naturalWidth") > 0, "the explorer's picture"

    # the lists change places
    left = lists.nth(1).locator(".name").all_inner_texts()
    box.get_by_role("button", name="Swap A and B").click()
    assert (
        show.evaluate("node => node.selectedOptions[0].text") == f"A hits, B misses ({len(kinds['B hits, A misses'])})"
    )
    show.select_option(index=2)
    users.select_option(index=0)
    assert lists.nth(2).locator(".name").all_inner_texts() == left

    # a user by id, and one that is not there
    show.select_option(index=0)
    box.get_by_label("Find a user").fill("USER-17")
    assert users.locator("option").count() == 1
    assert lists.nth(0).locator("h5").inner_text().startswith("User user-17")
    box.get_by_label("Find a user").fill("nobody")
    assert users.is_disabled()
    assert lists.count() == 0
    assert box.get_by_role("status").inner_text().endswith("No such user to choose from.")
    box.get_by_label("Find a user").fill("</script>")
    assert lists.nth(0).locator("h5").inner_text().startswith(f"User {EVIL_USER}")


def test_two_systems_side_by_side_by_the_keyboard(visit: Opener) -> None:
    page = visit()
    box = page.locator("#d-1 .pairs")
    head = box.locator(".list h5").first
    box.get_by_label("System A").focus()
    page.keyboard.press("ArrowDown")
    assert box.locator(".list h5").nth(1).inner_text().startswith("A: id/sasrec")
    for key, expected in (("Tab", "System B"), ("Tab", "Swap A and B")):
        page.keyboard.press(key)
        assert expected in page.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent")
    before = head.inner_text()
    panel = box.locator(".panel")
    panel.focus()
    page.keyboard.press("ArrowRight")
    second = head.inner_text()
    assert second != before
    page.keyboard.press("ArrowLeft")
    assert head.inner_text() == before
    page.keyboard.press("ArrowLeft")
    assert head.inner_text() == before, "there is none before the first"
    assert box.get_by_role("button", name="Previous").is_disabled()
    box.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    assert head.inner_text() == second
    assert second.startswith((panel.get_attribute("aria-label") or "").partition(";")[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_systems_side_by_side_have_contrast_and_fit_every_screen(visit: Opener, scheme: str) -> None:
    for width in (400, 2560):
        page = visit(scheme, width=width)
        box = page.locator("#d-1 .pairs")
        box.get_by_label("Show").select_option(index=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert box.evaluate("node => node.scrollWidth <= node.clientWidth")
        for selector in (
            ".pairs .notes",
            ".pairs .meta",
            ".pairs .won",
            ".pairs .lost",
            ".pairs select",
            ".pairs h5 span",
        ):
            assert contrast(page, selector) >= 4.5, selector
        tops = [box.locator(".two .list").nth(n).evaluate("node => node.getBoundingClientRect().top") for n in (0, 1)]
        assert (tops[0] == tops[1]) == (width == 2560)


def test_hostile_users_stay_in_their_places(visit_hostile: Opener) -> None:
    page = visit_hostile(width=400)
    box = page.locator(".pairs")
    assert "\\u202egpj.exe" in box.get_by_role("combobox", name="User", exact=True).locator("option").first.inner_text()
    assert box.evaluate("node => node.scrollWidth <= node.clientWidth")
