"use strict";
// ---- charts: a mark for each row of the table, one stop for the keyboard, arrows inside ----
function mark(plot) {
  const table = $("table", plot.closest("figure")), names = $$("thead th", table).map((each) => each.textContent), rows = [...table.tBodies[0].rows];
  const { width, height } = plot.viewBox.baseVal, kind = plot.dataset.marks, step = kind === "points" ? width / Math.max(rows.length - 1, 1) : width / rows.length;
  rows.forEach((row, index) => {
    const rect = document.createElementNS(plot.namespaceURI, "rect"), [name, ...cells] = [...row.cells].map((each) => each.textContent);
    const told = `${name}: ` + cells.map((cell, place) => (cells.length > 1 ? `${names[place + 1]} ${cell}` : cell)).join(", ");
    const left = kind === "points" ? (rows.length > 1 ? Math.max(0, (index - 0.5) * step) : 0) : index * step, right = kind === "points" ? Math.min(width, rows.length > 1 ? (index + 0.5) * step : width) : (index + 1) * step;
    for (const [key, value] of Object.entries({ x: left, y: 0, width: right - left, height, class: "mark", role: "img", tabindex: index ? -1 : 0, "aria-label": told, "data-tip": told })) rect.setAttribute(key, value);
    plot.append(rect);
  });
}
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
document.addEventListener("keydown", (event) => {
  const at = event.target.closest?.(".plot .mark"), step = STEPS[event.key];
  if (!at || !step) return;
  const marks = $$(".mark", at.closest("svg")), next = marks[marks.indexOf(at) + step];
  event.preventDefault();
  if (next) { at.setAttribute("tabindex", "-1"); next.setAttribute("tabindex", "0"); next.focus(); }
});

// ---- tooltips ----
const tip = document.createElement("div");
tip.className = "tip";
function tell(event) {
  const about = event.target.closest?.("[data-tip]");
  if (!about) return tip.remove();
  tip.textContent = about.dataset.tip;
  body.append(tip);
  const place = about.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(place.left + place.width / 2 - own.width / 2, innerWidth - own.width - 8))}px`;
  tip.style.top = `${place.top > own.height + 16 ? place.top - own.height - 8 : place.bottom + 8}px`;
}
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, tell);
document.addEventListener("focusout", () => tip.remove());
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.remove(); });
