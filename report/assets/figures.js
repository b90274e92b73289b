// Figures are drawn when they come into view, in the page's colours, and again when those change.
{
  const specs = report.json("figures");
  const drawn = new Set();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // Pixels of a figure on paper, A4 or letter: alone in its row, or one of two.
  const PAPER = { alone: 650, beside: 320, height: 260 };

  const layout = (spec, paper) => {
    const style = getComputedStyle(document.documentElement);
    // Before printing the page's own colours are still those of the screen.
    const ink = paper ? "#000000" : style.getPropertyValue("--ink").trim();
    const rule = paper ? "#bbbbbb" : style.getPropertyValue("--rule").trim();
    const axis = (given) => ({ gridcolor: rule, linecolor: rule, tickcolor: rule, zerolinecolor: ink, fixedrange: true, ...given });
    return {
      ...spec.layout,
      xaxis: axis(spec.layout.xaxis),
      yaxis: axis(spec.layout.yaxis),
      font: { color: ink, size: 12, family: "system-ui, sans-serif" },
      hoverlabel: { font: { family: "system-ui, sans-serif" } },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      ...(paper ? { width: paper.width, height: PAPER.height } : { autosize: true }),
    };
  };

  // Plotly is a large script: it is unpacked and run once, when a figure is first wanted.
  let loading = null;
  const plotly = () => {
    loading ??= report.inflate(document.getElementById("plotly").textContent).then((bytes) => {
      const script = document.createElement("script");
      script.textContent = new TextDecoder().decode(bytes);
      document.body.append(script);
    });
    return loading;
  };

  const draw = (place, paper = null) => {
    const spec = specs[place.dataset.panel];
    if (spec === undefined || typeof Plotly === "undefined") return;
    drawn.add(place);
    Plotly.react(place, spec.data, layout(spec, paper), { displayModeBar: false, responsive: true, showTips: false });
  };

  const ready = () => {
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting && !drawn.has(target)) plotly().then(() => draw(target));
      }
    }, { rootMargin: "400px" });
    for (const place of document.querySelectorAll(".plot")) seen.observe(place);
    for (const figure of document.querySelectorAll(".figure")) {
      figure.addEventListener("change", (event) => {
        for (const view of figure.querySelectorAll(".panels")) view.hidden = view.dataset.view !== event.target.value;
      });
    }
    const redraw = () => drawn.forEach((place) => draw(place));
    dark.addEventListener("change", redraw);
    addEventListener("afterprint", redraw);
    addEventListener("beforeprint", () => {
      for (const view of document.querySelectorAll(".panels:not([hidden])")) {
        const places = [...view.querySelectorAll(".plot")];
        const paper = { width: places.length > 1 ? PAPER.beside : PAPER.alone };
        places.forEach((place) => draw(place, paper));
      }
    });
    // Also without scrolling, so that a page that is printed at once has its figures.
    setTimeout(plotly, 1500);
  };
  ready();
}
