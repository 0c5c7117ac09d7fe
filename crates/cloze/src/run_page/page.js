// Pointing at a chart, or pressing the arrow keys on it, shows the nearest value of each curve and its step.
for (const figure of document.querySelectorAll("figure")) {
  const series = JSON.parse(figure.querySelector("script").textContent);
  const output = figure.querySelector("output");
  const shown = figure.querySelectorAll("figcaption b");
  for (const svg of figure.querySelectorAll("svg.chart")) {
    const cursor = svg.querySelector(".cursor");
    const places = [...svg.querySelectorAll("polyline")].map((line) => [...line.points].map((point) => point.x));
    const all = [...new Set(places.flat())].sort((a, b) => a - b);
    let current = -1;
    const nearest = (xs, x) => xs.reduce((best, at, i) => (Math.abs(at - x) < Math.abs(xs[best] - x) ? i : best), 0);
    const show = (x) => {
      const found = places.map((xs) => nearest(xs, x));
      const distance = (i) => Math.abs(places[i][found[i]] - x);
      const main = found.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
      const step = series[main].steps[found[main]];
      current = nearest(all, x);
      cursor.setAttribute("transform", `translate(${places[main][found[main]]} 0)`);
      cursor.style.visibility = "visible";
      output.textContent = `step ${step.toLocaleString("en")}`;
      found.forEach((at, i) => {
        const own = series[i].steps[at];
        shown[i].textContent = series[i].values[at] + (own === step ? "" : ` (step ${own.toLocaleString("en")})`);
      });
    };
    const hide = () => {
      cursor.style.visibility = "hidden";
      output.textContent = "";
      shown.forEach((value) => { value.textContent = ""; });
      current = -1;
    };
    const point = (event) => {
      const box = svg.getBoundingClientRect();
      show((event.clientX - box.left) / box.width * svg.viewBox.baseVal.width);
    };
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      show(all[Math.max(0, Math.min(all.length - 1, current + by))]);
    });
  }
}
