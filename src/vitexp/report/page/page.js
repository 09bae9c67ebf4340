"use strict";
// Rows of long tables can be sorted and filtered; marks of pictures say their values. All numbers stand without this.
const value = (row, i) => row.cells[i].textContent.trim();
const number = (text) => parseFloat(text.replace(/\u2212/g, "-").replace(/,/g, ""));
for (const table of document.querySelectorAll("table.rows")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], all = [...body.rows];
  heads.forEach((head, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "sort" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up === 1 ? "ascending" : "descending");
      const keyed = all.map((row) => [value(row, i), row]).map(([text, row]) => [number(text), text, row]);
      const words = keyed.some(([n, text]) => isNaN(n) && text && text !== "\u2013");
      keyed.sort((a, b) => words ? up * a[1].localeCompare(b[1], "en", { numeric: true })
        : isNaN(a[0]) - isNaN(b[0]) || up * (a[0] - b[0]));
      body.append(...keyed.map((one) => one[2]));
    });
  });
  const box = document.createElement("div"), label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "search" });
  const count = Object.assign(document.createElement("output"), { className: "faint", textContent: `${all.length} rows` });
  label.append("Rows with ", input);
  box.append(label, count);
  box.className = "filter";
  table.closest(".wide").before(box);
  const texts = all.map((row) => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/), shown = texts.map((text) => words.every((word) => text.includes(word)));
    all.forEach((row, i) => { row.hidden = !shown[i]; });
    count.textContent = `${shown.filter(Boolean).length} of ${all.length} rows`;
  });
}
const tip = document.getElementById("tip");
const nearest = (line, event) => {  // the point of a line that is nearest to the pointer
  const points = [...line.points], at = new DOMPoint(event.clientX, event.clientY).matrixTransform(line.getScreenCTM().inverse());
  return points.reduce((best, point, i) => Math.abs(point.x - at.x) < Math.abs(points[best].x - at.x) ? i : best, 0);
};
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest?.(".mark"), title = mark?.querySelector("title");
  tip.hidden = !mark;
  if (!mark) return;
  if (title) { mark.dataset.tip = title.textContent; title.remove(); }  // else the browser shows it too
  tip.textContent = mark.dataset.tip + (mark.dataset.at ? `: ${mark.dataset.at.split("|")[nearest(mark, event)]}` : "");
  (mark.closest(".panel") ?? document.body).append(tip);  // a panel lies above the rest of the page
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
});
