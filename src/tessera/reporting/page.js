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

  // ---- tables and figures to take away: made here, nothing is fetched
  const tool = (text, press) => {
    const node = document.createElement("button");
    Object.assign(node, { type: "button", textContent: text });
    node.addEventListener("click", () => press(node));
    return node;
  };
  const tools = (...buttons) => {
    const node = document.createElement("div");
    node.className = "tools";
    node.append(...buttons);
    return node;
  };
  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const fileName = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "table";
  const cellText = (cell) => (cell.dataset.value ?? (cell.querySelector("button") ?? cell).textContent).trim().replace(/\s+/g, " ");
  const rowsOf = (table, shown) =>
    [...table.rows].map((row) => [...row.cells].filter((cell) => !shown || cell.offsetParent).map(cellText));
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // where a page of a file may not use the clipboard
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };

  for (const table of document.querySelectorAll(".box > table")) {
    const box = table.parentElement;
    const name = fileName(box.getAttribute("aria-label") || "table");
    const copy = tool("Copy", async (node) => {
      await copied(rowsOf(table, true).map((row) => row.join("\t")).join("\n"));
      node.textContent = "Copied";
      setTimeout(() => (node.textContent = "Copy"), 1500);
    });
    copy.title = "Copy what is shown, as tab-separated values";
    const all = () => rowsOf(table, false).map((row) => row.map(quoted).join(",")).join("\n");
    const csv = tool("CSV", () => save(`${all()}\n`, "text/csv", `${name}.csv`));
    csv.title = "Download all columns as CSV";
    const more = tool("All columns", (node) => {
      const few = table.classList.toggle("few");
      node.textContent = few ? "All columns" : "Fewer columns";
      node.setAttribute("aria-pressed", String(!few));
    });
    box.before(tools(...(table.classList.contains("few") ? [more] : []), copy, csv));
  }
  for (const figure of document.querySelectorAll("figure")) {
    const name = fileName(figure.querySelector("figcaption").textContent);
    const svg = tool("SVG", () => {
      const style = getComputedStyle(root);
      const text = new XMLSerializer().serializeToString(figure.querySelector("svg"));
      const coloured = text.replace(/var\((--\w+)\)/g, (_, key) => style.getPropertyValue(key).trim());
      save(coloured, "image/svg+xml", `${name}.svg`);
    });
    svg.title = "Download this figure as SVG, in the colours shown";
    figure.append(tools(svg));
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

  // pictures of a dataset's items that another part of the page shows as well, by raw id
  const pictures = new Map();
  const held = (box) => {
    const section = box.closest("section");
    if (!pictures.has(section)) pictures.set(section, new Map());
    return pictures.get(section);
  };

  const explore = (box) => {
    const { tables, items, near, catalogue } = JSON.parse(box.querySelector("script").textContent);
    for (const [, id, , uri] of items) held(box).set(id, uri);
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
    const matches = make("ul", "strip found");
    matches.tabIndex = 0;
    matches.setAttribute("aria-label", "Items to choose from");
    const chosen = make("div", "chosen");
    chosen.tabIndex = -1;
    const lists = make("div", "lists");
    box.append(pick, count, matches, chosen, lists);

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
      let numbers = searched.flatMap((text, place) => (words.every((word) => text.includes(word)) ? [place] : []));
      const all = numbers.length;
      if (!words.length && step > 1) numbers = Array.from({ length: shown }, (_, n) => Math.floor((n + 0.5) * step));
      count.textContent = words.length
        ? `${all} of ${items.length} items`
        : `${items.length} items${items.length < catalogue ? ` of ${catalogue}, random ones, their neighbours and so on` : ""}`;
      matches.replaceChildren(...numbers.slice(0, shown).map((place) => tile(place)));
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

  // ---- tree of codes: a node is made when it is opened, and its children a page at a time
  const walk = (box) => {
    const { trees, items, catalogue } = JSON.parse(box.querySelector("script").textContent);
    const page = 24;
    const peeked = 6;
    for (const item of items) if (item[3] === 0) item[3] = held(box).get(item[1]);

    const several = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
    const firstBelow = (node, level, most) => {
      // the first items below a node that are on this page
      if (!level) return node[2].slice(0, most);
      const below = [];
      for (const [, child] of node[2]) {
        if (below.length >= most) break;
        below.push(...firstBelow(child, level - 1, most - below.length));
      }
      return below;
    };
    const tile = (place, codes) => {
      const item = items[place];
      const node = make("li", "tile");
      const name = make("span", "name", item[0] || item[1]);
      name.title = item[0] || item[1];
      node.append(picture(item), name);
      if (codes) node.append(make("span", "meta", codes));
      return node;
    };
    // what stands below an open node: `deep` levels are left
    const fill = (inside, node, deep, level) => {
      const [, hidden, children] = node;
      const list = make(deep ? "div" : "ul", deep ? "" : "tiles");
      const left = deep ? several(hidden, "code", "codes") : several(hidden, "item", "items");
      const more = make("button", "more");
      more.type = "button";
      let shown = 0;
      const next = () => {
        const made = children.slice(shown, shown + page).map((child) => (deep ? branch(child, deep, level) : tile(child)));
        list.append(...made);
        shown += made.length;
        more.hidden = shown >= children.length;
        more.textContent = `${Math.min(page, children.length - shown)} more of ${children.length - shown}`;
        return made[0];
      };
      next();
      more.addEventListener("click", () => {
        const first = next();
        (first.querySelector("summary") || first).focus();
      });
      inside.replaceChildren(list, more);
      if (hidden) inside.append(make("p", "notes", `${left} more not on this page`));
    };
    const branch = ([code, node], deep, level) => {
      const details = make("details");
      const summary = make("summary");
      const peek = make("span", "peek");
      for (const place of firstBelow(node, deep - 1, peeked)) {
        if (!items[place][3]) continue;
        const image = make("img");
        Object.assign(image, { src: items[place][3], alt: "", width: 36, height: 36 });
        peek.append(image);
      }
      const [only] = node[0] === 1 ? firstBelow(node, deep - 1, 1) : [];
      const alone = only === undefined ? "" : items[only][0] || items[only][1];
      const sizes = make("span", alone ? "size alone" : "size", alone || several(node[0], "item", "items"));
      const name = make("span", "code", String(code));
      name.title = `code ${code} of level ${level}`;
      summary.append(name, sizes, peek);
      const inside = make("div", "inside");
      details.append(summary, inside);
      details.addEventListener("toggle", () => {
        if (!details.open || inside.childElementCount) return;
        // a single item needs no more doors
        let [last, rest, codes] = [node, deep - 1, ""];
        while (rest && last[0] === 1 && last[2].length === 1) {
          codes += `${codes ? " " : ""}${last[2][0][0]}`;
          [last, rest] = [last[2][0][1], rest - 1];
        }
        if (!rest && codes && last[2].length) {
          const list = make("ul", "tiles");
          list.append(tile(last[2][0], `then ${codes}`));
          inside.append(list);
        } else fill(inside, node, deep - 1, level + 1);
      });
      return details;
    };

    const label = make("label", "", "Semantic IDs");
    const select = make("select");
    trees.forEach(({ recipe, part }, number) => {
      const option = make("option", "", part === recipe ? recipe : `${recipe}: ${part}`);
      option.value = number;
      select.append(option);
    });
    label.append(select);
    const pick = make("div", "pick");
    pick.append(label);
    const about = make("p", "notes");
    about.setAttribute("role", "status");
    const root = make("div", "root");
    const show = () => {
      const { sizes, ordered, items: count, root: node } = trees[select.value];
      const levels = `${several(sizes.length, "level", "levels")} of ${sizes.join(" × ")} codes`;
      const order = ordered || sizes.length < 2 ? "" : "; no level refines another, they are opened in turn";
      about.textContent = `${several(count, "item", "items")} of ${catalogue.toLocaleString("en")}, ${levels}${order}`;
      fill(root, node, sizes.length, 1);
    };
    select.addEventListener("change", show);
    box.append(pick, about, root);
    show();
  };
  document.querySelectorAll(".codes").forEach(walk);

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
