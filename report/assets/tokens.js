// One transcript as a heat map of its tokens: read by pointing, or by keys when it has the focus.
{
  const HIDDEN = { "\n": "⏎", "\t": "⇥" };
  const SPECIAL = /^<[|｜].*[|｜]>$|^<\/?[a-z_]+>$|^\[[A-Z_/]+\]$/u;
  const { colors } = report.data;
  let made = 0;
  // When something scrolls, a token comes under a pointer that rests: that is not pointing at it.
  let pointer = "";
  const place = ({ screenX, screenY }) => `${screenX} ${screenY}`;
  addEventListener("pointermove", (event) => { pointer = place(event); }, true);

  const shownText = (text, spaces) => {
    const marked = text.replace(/[\n\t]/gu, (char) => HIDDEN[char] + (char === "\n" ? "\n" : ""));
    if (marked === "") return "∅";
    return spaces ? marked.replaceAll(" ", "·") : marked;
  };

  // What is read out for a token.
  const told = (tokens, at) => {
    const span = tokens.spans.find(({ end }) => at < end);
    const score = tokens.scores[at];
    const edge = at === tokens.edge ? ", the edge" : "";
    const text = shownText(tokens.texts[at], true).replaceAll("\n", "");
    return `token ${at + 1} of ${tokens.texts.length}, ${span.name}${edge}: ${text} — refusal score ${score === null ? "unknown" : score.toFixed(2)}`;
  };

  // A strip with the score of every token, segments shaded in turn.
  const strip = (tokens) => {
    const name = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(name, "svg");
    const count = tokens.texts.length;
    const add = (kind, values, look) => {
      const part = document.createElementNS(name, kind);
      for (const [key, value] of Object.entries(values)) part.setAttribute(key, value);
      part.setAttribute("class", look);
      svg.append(part);
    };
    svg.setAttribute("viewBox", `0 0 ${count} 100`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "strip");
    svg.setAttribute("aria-hidden", "true");
    tokens.spans.forEach(({ start, end }, place) => {
      if (place % 2) add("rect", { x: start, y: 0, width: end - start, height: 100 }, "segment");
    });
    if (tokens.edge >= 0) add("line", { x1: tokens.edge + 0.5, x2: tokens.edge + 0.5, y1: 0, y2: 100 }, "edge");
    const points = tokens.scores.flatMap((score, at) => (score === null ? [] : [`${at + 0.5},${97 - 94 * score}`]));
    add("polyline", { points: points.join(" ") }, "line");
    return svg;
  };

  const moves = (tokens, at, key, elements) => {
    const last = tokens.texts.length - 1;
    const span = tokens.spans.findIndex(({ end }) => at < end);
    const line = (direction) => {
      // The token nearest in the next line of text, as it is laid out now.
      const box = elements[at].getClientRects()[0];
      let best = at;
      let least = Infinity;
      for (let other = at + direction; other >= 0 && other <= last && Math.abs(other - at) < 400; other += direction) {
        const place = elements[other].getClientRects()[0];
        const down = direction * (place.top - box.top);
        if (down < 4) continue;
        if (best !== at && down > least + 4) break;
        const off = Math.abs(place.left - box.left);
        if (best === at || off < Math.abs(elements[best].getClientRects()[0].left - box.left)) best = other;
        least = Math.min(least, down);
      }
      return best;
    };
    switch (key) {
      case "ArrowRight": return Math.min(last, at + 1);
      case "ArrowLeft": return Math.max(0, at - 1);
      case "ArrowDown": return line(1);
      case "ArrowUp": return line(-1);
      case "Home": return 0;
      case "End": return last;
      case "PageDown": return span + 1 < tokens.spans.length ? tokens.spans[span + 1].start : last;
      case "PageUp": return span > 0 ? tokens.spans[span - 1].start : 0;
      case "e": return tokens.edge >= 0 ? tokens.edge : at;
      default: return null;
    }
  };

  // The heat map; `say` is told what to read out. Its property `toEdge` moves to the edge, and the focus with it if asked.
  report.heatMap = (tokens, label, spaces, say) => {
    made += 1;
    const box = report.element("div", "", "tokens");
    box.tabIndex = 0;
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", `Tokens, ${label}`);
    const elements = [];
    for (const { name, start, end } of tokens.spans) {
      const block = report.element("div", "", "segment-block");
      block.setAttribute("role", "group");
      block.setAttribute("aria-label", name);
      block.dir = "auto";
      const title = report.element("span", name, "segment-name");
      title.setAttribute("aria-hidden", "true");
      block.append(title);
      for (let at = start; at < end; at += 1) {
        const text = tokens.texts[at];
        const part = report.element("span", shownText(text, spaces), "token");
        part.setAttribute("role", "option");
        part.setAttribute("aria-selected", "false");
        part.id = `token-${made}-${at}`;
        part.dataset.at = at;
        if (SPECIAL.test(text.trim())) part.classList.add("special");
        if (at === tokens.edge) part.classList.add("edge");
        if (tokens.scores[at] === null) part.classList.add("unscored");
        else [part.style.backgroundColor, part.style.color] = colors[Math.round(tokens.scores[at] * (colors.length - 1))];
        // With its spaces written out a text has nowhere to break.
        if (/^\s/u.test(text)) block.append(document.createElement("wbr"));
        block.append(part);
        elements.push(part);
      }
      box.append(block);
    }
    let at = Math.max(0, tokens.edge);
    // Brings a token into view: `nearest` and `center` scroll the page too, `box` only its own box.
    const go = (to, scroll = "nearest") => {
      elements[at].classList.remove("at");
      elements[at].setAttribute("aria-selected", "false");
      at = to;
      elements[at].classList.add("at");
      elements[at].setAttribute("aria-selected", "true");
      box.setAttribute("aria-activedescendant", elements[at].id);
      if (scroll === "box") {
        const [outer, inner] = [box.getBoundingClientRect(), elements[at].getBoundingClientRect()];
        box.scrollTop += inner.top - outer.top - outer.height / 2;
      } else if (scroll !== "") {
        elements[at].scrollIntoView({ block: scroll, behavior: "instant" });
      }
      say(told(tokens, at));
    };
    box.addEventListener("focus", () => go(at));
    box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const to = moves(tokens, at, event.key, elements);
      if (to === null) return;
      event.preventDefault();
      go(to);
    });
    box.addEventListener("pointerover", (event) => {
      const found = event.target.closest(".token");
      if (found && place(event) !== pointer) say(told(tokens, Number(found.dataset.at)));
    });
    box.addEventListener("click", (event) => {
      const found = event.target.closest(".token");
      if (found) go(Number(found.dataset.at), "");
    });
    const whole = report.element("div");
    whole.append(strip(tokens), box);
    whole.toEdge = (focus) => {
      if (tokens.edge < 0) return;
      if (focus) box.focus({ preventScroll: true });
      go(tokens.edge, focus ? "center" : "box");
    };
    return whole;
  };

  // A rollout without tokens: its texts, by segment.
  report.plainText = ([prompt, thinking, response]) => {
    const box = report.element("div", "", "tokens");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Text without scores");
    for (const [name, text] of [["instruction", prompt], ["thinking", thinking], ["response", response]]) {
      const block = report.element("div", "", "segment-block");
      block.dir = "auto";
      block.append(report.element("span", name, "segment-name"));
      block.append(report.element("bdi", text === null ? "(none)" : text, "plain"));
      box.append(block);
    }
    return box;
  };
}
