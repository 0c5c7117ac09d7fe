for (const figure of document.querySelectorAll("figure")) {
  const curves = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor"), out = figure.querySelector("output");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const near = (points) => points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
    const found = curves.filter((curve) => curve.p.length).map((curve) => [curve.n, near(curve.p)]);
    if (!found.length) return;
    cursor.setAttribute("x1", found[0][1][0]);
    cursor.setAttribute("x2", found[0][1][0]);
    cursor.style.visibility = "visible";
    out.textContent = "step " + found[0][1][1] + " · " + found.map(([name, point]) => name + " " + point[2]).join(" · ");
  });
  svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; out.textContent = ""; });
}
