// The explorer: a table of rollouts that is filtered, sorted and paged, and one rollout opened below it.
{
  const ROWS = 15;
  const NAMES = { complied: "harmful, complied", refused: "harmful, refused", benign: "benign", benign_refused: "benign, refused", unknown: "unknown" };
  const COLUMNS = [
    { key: "id", title: "rollout" },
    { key: "cliff", title: "cliff", number: true },
    { key: "outcome", title: "outcome" },
    { key: "category", title: "category" },
    { key: "plateau", title: "plateau", number: true },
    { key: "edge", title: "edge", number: true },
    { key: "tokens", title: "tokens", number: true },
    { key: "prompt", title: "prompt" },
  ];
  const SORTS = [
    ["cliff", -1, "largest cliff"], ["cliff", 1, "smallest cliff"], ["edge", 1, "lowest edge"], ["edge", -1, "highest edge"],
    ["plateau", -1, "highest plateau"], ["plateau", 1, "lowest plateau"], ["tokens", -1, "longest"], ["tokens", 1, "shortest"],
    ["id", 1, "id"], ["outcome", 1, "outcome"], ["category", 1, "category"],
  ];
  const BASE = "base";
  const all = report.data.rollouts;
  const byId = new Map(all.map((row) => [row.id, row]));
  const at = (id) => document.getElementById(id);
  const has = (key) => all.some((row) => row[key] !== null);
  const state = { sort: has("cliff") ? "cliff" : "id", direction: has("cliff") ? -1 : 1, page: 0, rows: all, open: null, search: 0 };

  const show = (row, { key, number }) => {
    if (row[key] === null || row[key] === undefined) return "–";
    if (key === "tokens") return row[key].toLocaleString("en");
    return number ? row[key].toFixed(3).replace("-", "−") : row[key];
  };

  const outcomeOf = (outcome) => {
    const made = report.element("span", NAMES[outcome] ?? outcome, "outcome");
    made.dataset.outcome = outcome;
    return made;
  };

  // Texts for the search, made when it is first used: small letters, all that a rollout says.
  let texts = null;
  const searchable = async () => {
    if (texts !== null) return texts;
    const found = new Map();
    for (const row of all) {
      const tokens = await report.tokens(BASE, row.id);
      const plain = tokens === null ? await report.texts(BASE, row.id) : null;
      const words = tokens !== null ? tokens.texts.join("") : (plain ?? []).join("\n");
      found.set(row.id, `${row.id}\n${row.prompt}\n${words}`.toLowerCase());
    }
    texts = found;
    return texts;
  };

  const order = (a, b) => {
    const [x, y] = [a[state.sort], b[state.sort]];
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return state.direction * (typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
  };

  const filter = async () => {
    state.search += 1;
    const mine = state.search;
    const [outcome, category, words] = [at("outcome").value, at("category").value, at("search").value.trim().toLowerCase()];
    const told = words === "" ? null : await searchable();
    if (mine !== state.search) return; // another letter was typed meanwhile
    state.rows = all.filter((row) => (outcome === "" || row.outcome === outcome)
      && (category === "" || row.category === category.slice(1))
      && (told === null || told.get(row.id).includes(words)));
    state.rows.sort(order);
    state.page = 0;
    draw();
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(state.rows.length / ROWS));
    const shown = state.rows.slice(state.page * ROWS, (state.page + 1) * ROWS);
    at("count").textContent = `${state.rows.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} rollouts`;
    at("page-number").textContent = `page ${state.page + 1} of ${pages}`;
    at("page-back").disabled = state.page === 0;
    at("page-on").disabled = state.page + 1 >= pages;
    for (const [place, head] of [...at("rollouts").tHead.rows[0].cells].entries()) {
      const sorted = COLUMNS[place].key === state.sort;
      head.setAttribute("aria-sort", sorted ? (state.direction > 0 ? "ascending" : "descending") : "none");
    }
    at("sort").value = `${state.sort} ${state.direction}`;
    // Only the rows of one page are in the document, however many rollouts there are.
    at("rollouts").tBodies[0].replaceChildren(...shown.map(line));
    current();
  };

  const line = (row) => {
    const made = document.createElement("tr");
    made.dataset.id = row.id;
    for (const column of COLUMNS) {
      const cell = report.element(column.key === "id" ? "th" : "td", "", column.number ? "number" : column.key);
      if (column.key === "id") {
        cell.scope = "row";
        const open = report.element("button");
        open.type = "button";
        open.title = row.id;
        open.append(report.element("bdi", row.id));
        open.addEventListener("click", () => openRollout(row.id));
        cell.append(open);
      } else if (column.key === "outcome") {
        cell.className = "";
        cell.append(outcomeOf(row.outcome));
      } else if (column.key === "prompt") {
        cell.append(report.element("bdi", row.prompt.length > 140 ? `${row.prompt.slice(0, 140)}…` : row.prompt));
      } else {
        cell.append(report.element("bdi", show(row, column)));
      }
      made.append(cell);
    }
    return made;
  };

  const current = () => {
    for (const row of at("rollouts").tBodies[0].rows) {
      if (row.dataset.id === state.open) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    const place = state.rows.findIndex((row) => row.id === state.open);
    at("previous").disabled = place <= 0;
    at("next").disabled = place < 0 ? state.rows.length === 0 : place + 1 >= state.rows.length;
  };

  const option = (value, text) => {
    const made = report.element("option", text);
    made.value = value;
    return made;
  };

  // The place of a rollout in the address: one can send it to a colleague.
  const link = (id) => `#rollout=${encodeURIComponent(id)}`;

  const openRollout = (id, focus = true) => {
    if (location.hash !== link(id)) history.pushState(null, "", link(id));
    return render(id, focus);
  };

  const render = async (id, focus) => {
    const row = byId.get(id);
    if (row === undefined) return;
    state.open = id;
    at("rollout-title").replaceChildren(report.element("bdi", id));
    const facts = COLUMNS.filter(({ key }) => !["id", "prompt"].includes(key)).map((column) => {
      const pair = document.createElement("div");
      const value = report.element("dd");
      value.append(column.key === "outcome" ? outcomeOf(row.outcome) : report.element("bdi", show(row, column)));
      pair.append(report.element("dt", column.title), value);
      return pair;
    });
    at("rollout-facts").replaceChildren(...facts);
    const names = Object.keys(report.data.names).filter((name) => name !== BASE
      && (Object.hasOwn(row.others, name) || Object.hasOwn(report.data.index[name] ?? {}, id)));
    const before = at("beside").value;
    at("beside").replaceChildren(option("", "nothing"), ...names.map((name) => option(name, report.data.names[name])));
    at("beside").value = names.includes(before) || (before === "" && at("beside").dataset.chosen) ? before : (names[0] ?? "");
    at("beside").disabled = names.length === 0;
    current();
    await sides();
    at("rollout").hidden = false;
    if (focus) {
      at("rollout-title").focus({ preventScroll: true });
      at("rollout").scrollIntoView({ block: "start", behavior: "instant" });
    }
  };

  let maps = [];
  const sides = async () => {
    const [id, row] = [state.open, byId.get(state.open)];
    const names = [BASE, at("beside").value].filter((name) => name !== "");
    const made = [];
    const found = [];
    for (const name of names) {
      const side = report.element("div", "", "side");
      const label = name === BASE ? "the model as it is" : report.data.names[name];
      const title = report.element("h4", label);
      const outcome = name === BASE ? row.outcome : row.others[name];
      if (outcome !== undefined) title.append(outcomeOf(outcome));
      side.append(title);
      const tokens = await report.tokens(name, id);
      const plain = tokens === null ? await report.texts(name, id) : null;
      if (tokens !== null && tokens.texts.length > 0) {
        const map = report.heatMap(tokens, label, at("spaces").checked, (words) => { at("readout").textContent = words; });
        side.append(map);
        found.push(map);
      } else {
        side.append(plain === null ? report.element("p", "Its text is not in the run's folder.") : report.plainText(plain));
      }
      made.push(side);
    }
    if (state.open !== id) return; // another one was opened meanwhile
    maps = found;
    at("sides").replaceChildren(...made);
    at("to-edge").disabled = maps.length === 0;
    at("readout").textContent = maps.length === 0 ? "No scores." : "Point at a token, or move with the arrow keys, to read its score.";
  };

  const step = (by) => {
    const place = state.rows.findIndex((row) => row.id === state.open);
    const to = state.rows[place + by];
    if (to === undefined) return;
    const page = Math.floor((place + by) / ROWS);
    if (page !== state.page) {
      state.page = page;
      draw();
    }
    openRollout(to.id, false);
  };

  const fromAddress = () => {
    const found = /^#rollout=(.*)$/u.exec(location.hash);
    if (!found) return;
    let id = found[1];
    try {
      id = decodeURIComponent(id);
    } catch {
      return;
    }
    if (!byId.has(id)) return;
    const place = state.rows.findIndex((row) => row.id === id);
    if (place >= 0 && Math.floor(place / ROWS) !== state.page) {
      state.page = Math.floor(place / ROWS);
      draw();
    }
    render(id, true);
  };

  const start = () => {
    const head = at("rollouts").tHead.rows[0];
    for (const column of COLUMNS) {
      const cell = report.element("th", "", column.number ? "number" : "");
      cell.scope = "col";
      const button = report.element("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        // Numbers begin with the largest.
        state.direction = state.sort === column.key ? -state.direction : column.number ? -1 : 1;
        state.sort = column.key;
        state.rows.sort(order);
        state.page = 0;
        draw();
      });
      cell.append(button);
      head.append(cell);
    }
    const values = (key) => [...new Set(all.map((row) => row[key]))].filter((value) => value !== null && value !== undefined).sort();
    at("outcome").append(option("", "all"), ...values("outcome").map((value) => option(value, NAMES[value] ?? value)));
    // A category may be the empty text: the value of an option begins with a letter of its own.
    at("category").append(option("", "all"), ...values("category").map((value) => option(`=${value}`, value)));
    const chosen = SORTS.filter(([key]) => has(key));
    at("sort").append(...COLUMNS.flatMap(({ key, title }) => [1, -1].map((direction) => {
      const named = chosen.find(([other, way]) => other === key && way === direction);
      return option(`${key} ${direction}`, named ? named[2] : `${title}, ${direction > 0 ? "ascending" : "descending"}`);
    })).sort((a, b) => rank(a) - rank(b)));
    at("filters").addEventListener("submit", (event) => event.preventDefault());
    at("filters").addEventListener("reset", () => setTimeout(() => {
      [state.sort, state.direction] = has("cliff") ? ["cliff", -1] : ["id", 1];
      filter();
    }));
    for (const name of ["outcome", "category"]) at(name).addEventListener("change", filter);
    let waiting = 0;
    at("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 150);
    });
    at("sort").addEventListener("change", () => {
      const [key, direction] = at("sort").value.split(" ");
      [state.sort, state.direction] = [key, Number(direction)];
      filter();
    });
    at("page-back").addEventListener("click", () => { state.page -= 1; draw(); });
    at("page-on").addEventListener("click", () => { state.page += 1; draw(); });
    at("previous").addEventListener("click", () => step(-1));
    at("next").addEventListener("click", () => step(1));
    // The one beside it first, so that what is read out is of the model as it is.
    at("to-edge").addEventListener("click", () => [...maps].reverse().forEach((map) => map.toEdge(map === maps[0])));
    at("close").addEventListener("click", () => {
      const id = state.open;
      state.open = null;
      at("rollout").hidden = true;
      history.replaceState(null, "", "#explorer");
      current();
      const row = [...at("rollouts").tBodies[0].rows].find(({ dataset }) => dataset.id === id);
      (row ? row.querySelector("button") : at("search")).focus();
    });
    at("beside").addEventListener("change", () => {
      at("beside").dataset.chosen = "yes";
      sides();
    });
    at("spaces").addEventListener("change", sides);
    addEventListener("hashchange", fromAddress);
    addEventListener("popstate", fromAddress);
    state.rows = [...all].sort(order);
    draw();
    fromAddress();
  };

  const rank = ({ value }) => {
    const place = SORTS.findIndex(([key, direction]) => `${key} ${direction}` === value);
    return place < 0 ? SORTS.length : place;
  };

  start();
}
