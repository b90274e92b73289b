// Buttons that copy, and tables that sort.
{
  const copied = async (button, text) => {
    const words = button.firstChild;
    const before = words.textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page opened from disk may not use the clipboard in every browser.
      const area = report.element("textarea", text);
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    words.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => { words.textContent = before; }, 1500);
  };

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => {
      const from = button.dataset.copyFrom;
      copied(button, from ? document.getElementById(from).textContent : button.dataset.copy);
    });
  }

  // A cell's number, if it begins with one.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replaceAll("−", "-").replaceAll(",", ""));
    return [Number.isNaN(number) ? null : number, text];
  };

  const compare = ([a, textA], [b, textB]) => {
    if (a !== null && b !== null && a !== b) return a - b;
    if ((a === null) !== (b === null)) return a === null ? 1 : -1;
    return textA.localeCompare(textB, "en", { numeric: true });
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.setAttribute("aria-sort", "none");
      head.querySelector("button").addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [row, value(row, column)]);
        rows.sort((a, b) => (descending ? -1 : 1) * compare(a[1], b[1]));
        body.append(...rows.map(([row]) => row));
      });
    });
  }
}
