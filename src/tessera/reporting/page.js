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
  const cellText = (cell) => {
    const own = (cell.querySelector("button") ?? cell).cloneNode(true);
    for (const tag of own.querySelectorAll(".tag")) tag.remove(); // a run's name is what other tables call it
    return (cell.dataset.value ?? own.textContent).trim().replace(/\s+/g, " ");
  };
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
    copy.title = "Copy the columns shown, numbers in full, as tab-separated values";
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

  const options = (names) => names.map((name, number) => Object.assign(make("option", "", name), { value: number }));
  const choice = (text, names) => {
    const label = make("label", "", text);
    const select = make("select");
    select.append(...options(names));
    label.append(select);
    return [label, select];
  };

  // pictures of a dataset's items that another part of the page shows as well, by raw id
  const pictures = new Map();
  const held = (box) => {
    const section = box.closest("section");
    if (!pictures.has(section)) pictures.set(section, new Map());
    return pictures.get(section);
  };

  // ways from another part of a section to an item here: name of the part -> raw id -> opens it, or undefined
  const doors = new Map();
  const ways = (box) => {
    const section = box.closest("section");
    if (!doors.has(section)) doors.set(section, new Map());
    return doors.get(section);
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
    const placeOf = new Map(items.map(([, id], place) => [id, place]));
    ways(box).set("Nearest items", (id) => (placeOf.has(id) ? () => {
      go(placeOf.get(id));
      chosen.scrollIntoView({ block: "center" });
    } : undefined));
  };
  document.querySelectorAll(".explorer").forEach(explore);

  // ---- tree of codes: a node is made when it is opened, and its children a page at a time
  const walk = (box) => {
    const { trees, items, catalogue } = JSON.parse(box.querySelector("script").textContent);
    const page = 24;
    const peeked = 6;
    for (const item of items) {
      if (item[3] === 0) item[3] = held(box).get(item[1]);
      else held(box).set(item[1], item[3]);
    }

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
      inside.reach = (number) => {
        while (shown <= number) next();
        return list.children[number];
      };
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
      details.unfold = () => {
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
      };
      details.addEventListener("toggle", details.unfold);
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

    // which child to open at each level to come to an item; undefined where it is not below the node
    const route = ([, , children], level, place) => {
      if (!level) return children.includes(place) ? [children.indexOf(place)] : undefined;
      for (const [number, [, child]] of children.entries()) {
        const rest = route(child, level - 1, place);
        if (rest) return [number, ...rest];
      }
      return undefined;
    };
    const reveal = (number, steps) => {
      if (Number(select.value) !== number) {
        select.value = number;
        show();
      }
      let inside = root;
      let last = root;
      for (const step of steps) {
        if (!inside?.reach) break; // a single item: its tile is shown at once
        last = inside.reach(step);
        if (!last.unfold) break;
        last.open = true;
        last.unfold();
        inside = last.lastElementChild;
      }
      if (last.unfold) last = inside.querySelector(".tile") || last;
      last.tabIndex = -1;
      last.focus({ preventScroll: true });
      last.scrollIntoView({ block: "center" });
    };
    const placeOf = new Map(items.map(([, id], place) => [id, place]));
    ways(box).set("Tree of codes", (id) => {
      if (!placeOf.has(id)) return undefined;
      const order = trees.map((_, number) => number).sort((a) => (a === Number(select.value) ? -1 : 0));
      for (const number of order) {
        const steps = route(trees[number].root, trees[number].sizes.length, placeOf.get(id));
        if (steps) return () => reveal(number, steps);
      }
      return undefined;
    });
  };
  document.querySelectorAll(".codes").forEach(walk);

  // ---- map of the items: points on a canvas, of which one is looked at
  const chart = (box) => {
    const { items, tables, colours, catalogue } = JSON.parse(box.querySelector("script").textContent);
    const near = 14; // pixels from a point that still mean it
    const margin = 14;
    const [tableLabel, table] = choice("Table", tables.map(({ name }) => name));
    const [colourLabel, colour] = choice("Colour", []);
    const pick = make("div", "pick");
    pick.append(tableLabel, colourLabel);
    const about = make("p", "notes");
    about.setAttribute("role", "status");
    const canvas = make("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const hover = make("div", "hover");
    hover.setAttribute("aria-live", "polite");
    hover.hidden = true;
    const frame = make("div", "frame");
    frame.append(canvas, hover);
    const legend = make("ul", "legend");
    const chosen = make("div", "chosen");
    chosen.setAttribute("aria-live", "polite");
    box.append(pick, about, frame, legend, chosen);

    let shown = []; // [place in items, x, y] in pixels
    let looked = -1;
    let opened = -1;

    const channels = (name) => {
      const hex = getComputedStyle(root).getPropertyValue(name).trim();
      return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
    };
    const shade = (share) => {
      const [low, high] = [channels("--c0"), channels("--c1")];
      return `rgb(${low.map((part, number) => Math.round(part + (high[number] - part) * share)).join(" ")})`;
    };
    const colourings = () => [...colours, ...tables[table.value].colours];
    const paints = ({ values, ordered }) => {
      const style = getComputedStyle(root);
      const own = values.map((_, number) =>
        ordered ? shade(number / Math.max(1, values.length - 1)) : style.getPropertyValue(`--c${number}`));
      return [...own, style.getPropertyValue("--muted")];
    };
    const draw = () => {
      const ratio = devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      const { x, y } = tables[table.value];
      const side = Math.min(width, height) - 2 * margin;
      const [left, top] = [(width - side) / 2, (height - side) / 2];
      shown = [];
      x.forEach((across, place) => {
        if (across >= 0) shown.push([place, left + (across / 1000) * side, top + (1 - y[place] / 1000) * side]);
      });
      const colouring = colourings()[colour.value];
      const paint = paints(colouring);
      pen.globalAlpha = 0.8;
      for (const [place, across, down] of shown) {
        const number = colouring.of[place];
        pen.fillStyle = number < 0 ? paint[paint.length - 1] : paint[number];
        pen.beginPath();
        pen.arc(across, down, number < 0 ? 1.5 : 3.5, 0, 2 * Math.PI);
        pen.fill();
      }
      pen.globalAlpha = 1;
      pen.strokeStyle = getComputedStyle(root).getPropertyValue("--ink");
      for (const [place, across, down] of shown) {
        if (place !== looked && place !== opened) continue;
        pen.lineWidth = place === opened ? 2.5 : 1.5;
        pen.beginPath();
        pen.arc(across, down, 6, 0, 2 * Math.PI);
        pen.stroke();
      }
    };
    const explain = () => {
      const colouring = colourings()[colour.value];
      const paint = paints(colouring);
      const counts = new Map();
      for (const [place] of shown) counts.set(colouring.of[place], (counts.get(colouring.of[place]) || 0) + 1);
      const names = [...colouring.values, "other values"];
      const rows = names.flatMap((name, number) => (counts.has(number) ? [[paint[number], name, counts.get(number)]] : []));
      if (counts.has(-1)) rows.push([paint[paint.length - 1], "no value", counts.get(-1)]);
      legend.replaceChildren(...rows.map(([fill, name, count]) => {
        const row = make("li", "", `${name} `);
        const dot = make("span", "dot");
        dot.style.background = fill;
        row.prepend(dot);
        row.append(make("span", "meta", count.toLocaleString("en")));
        return row;
      }));
    };
    const card = (place) => {
      const [title, id, count] = items[place];
      const text = make("div");
      text.append(make("p", "title", title || "(no title)"));
      text.append(make("p", "meta", `${id} · ${count.toLocaleString("en")} in train`));
      const uri = held(box).get(id);
      return uri ? [picture([title, id, count, uri]), text] : [text];
    };
    const look = (place) => {
      if (place === looked) return;
      looked = place;
      draw();
      canvas.style.cursor = place < 0 ? "" : "pointer";
      hover.hidden = place < 0;
      if (hover.hidden) return;
      hover.replaceChildren(...card(place));
      const [, across, down] = shown.find(([other]) => other === place);
      hover.style.left = `${Math.max(0, Math.min(across + 12, canvas.clientWidth - hover.offsetWidth))}px`;
      const above = down - hover.offsetHeight - 12;
      hover.style.top = `${above < 0 ? down + 14 : above}px`;
    };
    const open = (place) => {
      opened = place;
      draw();
      const buttons = make("div", "doors");
      for (const [name, door] of ways(box)) {
        const way = door(items[place][1]);
        if (!way) continue;
        const button = make("button", "", name);
        button.type = "button";
        button.addEventListener("click", way);
        buttons.append(button);
      }
      chosen.replaceChildren(...card(place), buttons);
    };
    const at = (event) => {
      const { left, top } = canvas.getBoundingClientRect();
      let [best, least] = [-1, near ** 2];
      for (const [place, across, down] of shown) {
        const distance = (event.clientX - left - across) ** 2 + (event.clientY - top - down) ** 2;
        if (distance < least) [best, least] = [place, distance];
      }
      return best;
    };
    // the nearest point in the direction of an arrow key
    const step = (right, down) => {
      const from = shown.find(([place]) => place === looked);
      if (!from) return shown.length ? shown[0][0] : -1;
      let [best, least] = [looked, Infinity];
      for (const [place, x, y] of shown) {
        const along = (x - from[1]) * right + (y - from[2]) * down;
        const aside = Math.abs((x - from[1]) * down) + Math.abs((y - from[2]) * right);
        if (along > 0 && along + 2 * aside < least) [best, least] = [place, along + 2 * aside];
      }
      return best;
    };
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("pointermove", (event) => look(at(event)));
    canvas.addEventListener("pointerleave", () => look(-1));
    canvas.addEventListener("click", (event) => {
      const place = at(event);
      if (place >= 0) open(place);
    });
    canvas.addEventListener("keydown", (event) => {
      if (arrows[event.key]) look(step(...arrows[event.key]));
      else if (event.key === "Enter" && looked >= 0) open(looked);
      else return;
      event.preventDefault();
    });

    const recolour = () => {
      draw();
      explain();
    };
    const show = () => {
      const { name, method, colours: own } = tables[table.value];
      const before = colour.selectedOptions[0]?.textContent;
      const names = [...colours.map((one) => one.name), ...own.map((one) => `first code of ${one.name}`)];
      colour.replaceChildren(...options(names));
      colour.value = Math.max(0, names.indexOf(before));
      looked = -1;
      hover.hidden = true;
      recolour();
      const how = method === "tsne" ? "t-SNE of the first 50 principal components" : "the first two principal components";
      const part = items.length < catalogue ? `, ${items.length.toLocaleString("en")} of ${catalogue.toLocaleString("en")} on this page` : "";
      about.textContent = `${shown.length.toLocaleString("en")} items${part}; ${how}, of rows scaled to length one. `
        + "Near points are like items; the axes mean nothing else.";
      canvas.setAttribute("aria-label", `Map of the items of ${name}; arrow keys go from item to item, Enter opens one`);
    };
    table.addEventListener("change", show);
    colour.addEventListener("change", recolour);
    new ResizeObserver(draw).observe(frame);
    new MutationObserver(recolour).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
    show();
  };
  document.querySelectorAll(".atlas").forEach(chart);

  // ---- test users under two systems side by side
  const pair = (box) => {
    const { cutoff, systems, first, second, items, users, both, alone, judged, several_seeds: seeds } =
      JSON.parse(box.querySelector("script").textContent);
    for (const item of items) if (item[3] === 0) item[3] = held(box).get(item[1]);
    const [id, length, history, target, ranks, lists] = [0, 1, 2, 3, 4, 5];
    const hits = (user, system) => user[ranks][system] !== null && user[ranks][system] <= cutoff;
    const kinds = [
      ["all users", () => true, (a, b) => judged[a][b]],
      ["A hits, B misses", (user, a, b) => hits(user, a) && !hits(user, b), (a, b) => alone[a][b]],
      ["B hits, A misses", (user, a, b) => hits(user, b) && !hits(user, a), (a, b) => alone[b][a]],
      ["both hit", (user, a, b) => hits(user, a) && hits(user, b), (a, b) => both[a][b]],
      ["both miss", (user, a, b) => !hits(user, a) && !hits(user, b), (a, b) => judged[a][b] - both[a][b] - alone[a][b] - alone[b][a]],
    ];

    const [labelA, one] = choice("System A", systems);
    const [labelB, other] = choice("System B", systems);
    const [labelKind, kind] = choice("Show", kinds.map(([name]) => name));
    const labelSearch = make("label", "", "Find a user by id");
    const search = Object.assign(make("input"), { type: "search" });
    labelSearch.append(search);
    const [labelUser, user] = choice("User", []);
    const button = (text, press) => {
      const node = Object.assign(make("button", "", text), { type: "button" });
      node.addEventListener("click", press);
      return node;
    };
    const swap = button("Swap A and B", () => {
      [one.value, other.value] = [other.value, one.value];
      fill();
    });
    const before = button("Previous", () => move(-1));
    const after = button("Next", () => move(1));
    const random = button("Random user", () => go(Math.floor(Math.random() * matching.length)));
    const rows = [[labelA, labelB, swap], [labelKind, labelSearch, labelUser], [before, after, random]];
    const picks = rows.map((row) => {
      const pick = make("div", "pick");
      pick.append(...row);
      return pick;
    });
    const count = make("p", "notes");
    count.setAttribute("role", "status");
    const panel = make("div", "panel");
    panel.tabIndex = 0;
    panel.setAttribute("role", "group");
    box.append(...picks, count, panel);

    let matching = [];
    const rankText = (rank) => (rank === null ? "missed" : rank.toLocaleString("en"));
    const tile = (place, note, mark, again) => {
      const item = items[place];
      const node = make("li", mark ? "tile hit" : "tile");
      const name = make("span", "name", item[0] || item[1]);
      name.title = `${item[0] || item[1]}, ${item[2].toLocaleString("en")} in train`;
      node.append(picture(item), name);
      if (note || again) node.append(make("span", "meta", [note, again].filter(Boolean).join(" · ")));
      if (mark) node.append(make("span", "mark", mark));
      return node;
    };
    const head = (text, more) => {
      const node = make("h5", "", text);
      if (more) node.append(" ", make("span", "", more));
      return node;
    };
    const recommended = (user, letter, system, letterOther, systemOther) => {
      const node = make("div", "list");
      const rank = user[ranks][system];
      const hit = hits(user, system);
      const title = head(`${letter}: ${systems[system]}`);
      const where = rank === null ? "counts as a miss" : `target at rank ${rankText(rank)}`;
      title.append(" ", make("b", hit ? "won" : "lost", hit ? "hit" : "miss"), " ", make("span", "", where));
      const list = make("ol", "tiles");
      const theirs = new Set(user[lists][systemOther]);
      list.append(...user[lists][system].map((place, number) =>
        tile(place, String(number + 1), place === user[target] ? "target" : "", theirs.has(place) ? `also ${letterOther}` : "")));
      node.append(title, user[lists][system].length ? list : make("p", "notes", "no list"));
      return node;
    };
    const show = () => {
      const [a, b] = [Number(one.value), Number(other.value)];
      const place = Number(user.value);
      const chosen = matching[place];
      const all = kinds[kind.value][2](a, b);
      before.disabled = !chosen || place === 0;
      after.disabled = !chosen || place === matching.length - 1;
      random.disabled = matching.length < 2;
      const on = users.length < judged[a][b] ? ` (on this page: ${users.length.toLocaleString("en")})` : "";
      count.textContent = `${kinds[kind.value][0]}: ${all.toLocaleString("en")} of ${judged[a][b].toLocaleString("en")} test users${on}; `
        + `a hit is a target within the first ${cutoff}${seeds ? ", by the first seed of each" : ""}. `
        + (chosen ? `User ${(place + 1).toLocaleString("en")} of ${matching.length.toLocaleString("en")} to choose from.` : "No such user to choose from.");
      if (!chosen) {
        panel.replaceChildren();
        panel.removeAttribute("aria-label");
        return;
      }
      panel.setAttribute("aria-label", `User ${chosen[id]}; the left and right arrow keys go to others`);
      const past = make("div", "list");
      const strip = make("ul", "tiles");
      strip.append(...chosen[history].map((item) => tile(item)), tile(chosen[target], "", "target"));
      past.append(head(`User ${chosen[id]}`, `last ${chosen[history].length} of ${chosen[length].toLocaleString("en")} items, and the target`), strip);
      const two = make("div", "two");
      two.append(recommended(chosen, "A", a, "B", b), recommended(chosen, "B", b, "A", a));
      panel.replaceChildren(past, two);
    };
    const go = (place) => {
      user.value = place;
      show();
    };
    const move = (step) => go(Math.max(0, Math.min(matching.length - 1, Number(user.value) + step)));
    const fill = () => {
      const [a, b] = [Number(one.value), Number(other.value)];
      const words = search.value.toLowerCase().trim();
      const kept = matching[user.value];
      const known = (person) => person[ranks][a] !== -1 && person[ranks][b] !== -1;
      matching = users.filter((person) =>
        known(person) && kinds[kind.value][1](person, a, b) && person[id].toLowerCase().includes(words));
      user.replaceChildren(...options(matching.map((person) =>
        `${person[id]}: A ${rankText(person[ranks][a])}, B ${rankText(person[ranks][b])}`)));
      kinds.forEach(([name, , all], number) => {
        kind.options[number].textContent = `${name} (${all(a, b).toLocaleString("en")})`;
      });
      user.disabled = !matching.length;
      go(Math.max(0, matching.indexOf(kept)));
    };
    for (const select of [one, other, kind]) select.addEventListener("change", fill);
    search.addEventListener("input", fill);
    user.addEventListener("change", show);
    panel.addEventListener("keydown", (event) => {
      if (event.target !== panel || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      event.preventDefault();
      move(event.key === "ArrowLeft" ? -1 : 1);
    });
    [one.value, other.value] = [first, second];
    fill();
  };
  document.querySelectorAll(".pairs").forEach(pair);

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
