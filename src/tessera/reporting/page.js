"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;

  const paint = () => {
    const theme = chosen || (prefersDark.matches ? "dark" : "light");
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
  };
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    paint();
  });
  prefersDark.addEventListener("change", paint);
  paint();

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);

  const sort = (head) => {
    const table = head.closest("table");
    const body = table.tBodies[0];
    const column = head.cellIndex;
    const rows = [...body.rows];
    const numbers = rows.some((row) => row.cells[column].dataset.value !== undefined);
    // numbers start with the largest, names with A
    const before = head.getAttribute("aria-sort");
    const descending = before === "none" ? numbers : before === "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const keyed = rows.map((row) => [valueOf(row, column), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // unknown ones stay last
      return descending ? compare(b, a) : compare(a, b);
    });
    body.append(...keyed.map(([, row]) => row));
  };
  for (const head of document.querySelectorAll("table.sortable th[aria-sort]")) {
    head.querySelector("button").addEventListener("click", () => sort(head));
  }

  // ---- explorer of item tables: everything is made from text, nothing of the data is ever read as markup
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const picture = ([title, id, , uri]) => {
    if (!uri) {
      const none = make("span", "nopicture", "no picture");
      none.setAttribute("role", "img");
      none.setAttribute("aria-label", "no picture");
      return none;
    }
    const image = make("img");
    Object.assign(image, { src: uri, alt: title || id, width: 72, height: 72 });
    return image;
  };

  const explore = (box) => {
    const { tables, items, near, catalogue } = JSON.parse(box.querySelector("script").textContent);
    const shown = 24;
    const seen = [];
    const searched = items.map(([title, id]) => `${title}\n${id}`.toLowerCase());

    const label = make("label", "", "Find an item by its title or id");
    const search = make("input");
    search.type = "search";
    label.append(search);
    const button = (text) => {
      const node = make("button", "", text);
      node.type = "button";
      return node;
    };
    const random = button("Random item");
    const back = button("Back");
    const pick = make("div", "pick");
    pick.append(label, random, back);
    const count = make("p", "notes");
    count.setAttribute("role", "status");
    const found = make("ul", "strip found");
    found.tabIndex = 0;
    found.setAttribute("aria-label", "Items to choose from");
    const chosen = make("div", "chosen");
    chosen.tabIndex = -1;
    const lists = make("div", "lists");
    box.append(pick, count, found, chosen, lists);

    const tile = (place, note) => {
      const item = items[place];
      const node = make("li", "tile");
      const choose = button("");
      choose.title = item[0] || item[1];
      choose.append(picture(item), make("span", "name", item[0] || item[1]));
      if (note) choose.append(make("span", "meta", note));
      choose.addEventListener("click", () => go(place));
      node.append(choose);
      return node;
    };
    const neighbours = (name, list) => {
      const node = make("div", "list");
      const head = make("h5", "", name);
      node.append(head);
      if (!list) {
        node.append(make("p", "notes", "no vector of this item"));
        return node;
      }
      const [rows, hidden] = list;
      if (hidden) head.append(make("span", "", `${hidden} more not on this page`));
      const strip = make("ul", "strip");
      strip.tabIndex = 0;
      strip.setAttribute("aria-label", `Nearest items under ${name}`);
      strip.append(...rows.map(([place, cosine]) => tile(place, cosine.toFixed(2))));
      node.append(strip);
      return node;
    };
    const show = (place) => {
      const item = items[place];
      const about = make("div");
      about.append(make("p", "title", item[0] || "(no title)"));
      about.append(make("p", "meta", `${item[1]} · ${item[2].toLocaleString("en")} in train`));
      chosen.replaceChildren(picture(item), about);
      lists.replaceChildren(...tables.map((name, number) => neighbours(name, near[number][place])));
      back.disabled = seen.length < 2;
    };
    const go = (place) => {
      seen.push(place);
      show(place);
      chosen.focus({ preventScroll: true });
      if (chosen.getBoundingClientRect().top < 80) chosen.scrollIntoView({ block: "center" });
    };
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const step = items.length / shown;
      let places = searched.flatMap((text, place) => (words.every((word) => text.includes(word)) ? [place] : []));
      const all = places.length;
      if (!words.length && step > 1) places = Array.from({ length: shown }, (_, n) => Math.floor((n + 0.5) * step));
      count.textContent = words.length
        ? `${all} of ${items.length} items`
        : `${items.length} items${items.length < catalogue ? ` of ${catalogue}, random ones, their neighbours and so on` : ""}`;
      found.replaceChildren(...places.slice(0, shown).map((place) => tile(place)));
    };
    search.addEventListener("input", filter);
    random.addEventListener("click", () => go(Math.floor(Math.random() * items.length)));
    back.addEventListener("click", () => {
      seen.pop();
      show(seen[seen.length - 1]);
      if (back.disabled) chosen.focus({ preventScroll: true });
    });
    filter();
    seen.push(items.reduce((best, item, place) => (item[2] > items[best][2] ? place : best), 0));
    show(seen[0]);
  };
  document.querySelectorAll(".explorer").forEach(explore);

  const tip = document.getElementById("tip");
  const marks = "figure svg [aria-roledescription][aria-label]";
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.(marks);
    const text = mark?.getAttribute("aria-label");
    tip.hidden = !text || /container|legend|axis/.test(mark.getAttribute("aria-roledescription"));
    if (tip.hidden) return;
    tip.textContent = text;
    const { offsetWidth: width, offsetHeight: height } = tip;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${event.clientY - height - 12 < 4 ? event.clientY + 16 : event.clientY - height - 12}px`;
  });
})();
