// Where a pointer is over a chart: the values of all curves there, below it.
for (const svg of document.querySelectorAll("svg")) {
  const output = svg.nextElementSibling;
  const show = (event) => {
    const toChart = svg.getScreenCTM().inverse();
    const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(toChart);
    const away = (circle) => Math.abs(circle.cx.baseVal.value - x);
    const nearest = [...svg.querySelectorAll("g")]
      .filter((curve) => getComputedStyle(curve).display !== "none")
      .map((curve) => [...curve.querySelectorAll("circle")])
      .filter((circles) => circles.length)
      .map((circles) => circles.reduce((a, b) => (away(b) < away(a) ? b : a)));
    clear();
    for (const circle of nearest) circle.classList.add("at");
    output.textContent = nearest.map((circle) => circle.textContent).join("\n");
  };
  const clear = () => {
    for (const circle of svg.querySelectorAll(".at")) circle.classList.remove("at");
    output.textContent = "";
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", clear);
}
