// The page is whole without this: it adds copy buttons, and a reading of the rates under the pointer.
"use strict";
for (const button of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) break;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
const source = document.getElementById("rates-data");
const figure = document.querySelector("figure.interactive");
if (source && figure) {
  const data = JSON.parse(source.textContent);
  const readout = figure.querySelector(".readout");
  const hide = () => {
    readout.hidden = true;
    for (const cursor of figure.querySelectorAll(".cursor")) cursor.setAttribute("visibility", "hidden");
  };
  for (const plot of figure.querySelectorAll("svg.plot")) {
    const left = Number(plot.dataset.left), right = Number(plot.dataset.right);
    const cursor = plot.querySelector(".cursor");
    const bins = data.rates[0].values.length;
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const x = (event.clientX - box.left) * plot.viewBox.baseVal.width / box.width;
      const bin = Math.floor((x - left) / (right - left) * bins);
      if (bin < 0 || bin >= bins) return hide();
      cursor.setAttribute("transform", `translate(${left + (bin + 0.5) / bins * (right - left)} 0)`);
      cursor.setAttribute("visibility", "visible");
      const at = data.start + bin * data.width;
      const rows = data.rates.map((rate) => `${rate.name}\u2002${Math.round(rate.values[bin]).toLocaleString("en")}/s`);
      const active = data.faults.filter((f) => f.start <= at + data.width && (f.end === null || f.end >= at));
      readout.textContent = [`${at.toFixed(2)} s`, ...rows, ...active.map((f) => `fault ${f.title}`)].join("\n");
      readout.hidden = false;
      const outer = figure.getBoundingClientRect();
      const away = event.clientX - outer.left + 16;
      const room = outer.width - readout.offsetWidth - 4;
      readout.style.left = `${away < room ? away : Math.max(0, event.clientX - outer.left - readout.offsetWidth - 16)}px`;
      readout.style.top = `${event.clientY - outer.top + 12}px`;
    });
  }
}
