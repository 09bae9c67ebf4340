"use strict";
// All numbers stand without this. With it there is one table of all runs, long tables are sorted and filtered, marks of
// pictures say their values, and pictures are made larger.
const make = (name, facts = {}, ...inside) => {
  const made = Object.assign(document.createElement(name), facts);
  made.append(...inside);
  return made;
};
for (const place of document.querySelectorAll(".runs")) {  // made of the runs behind each arm
  const panels = [...place.parentNode.querySelectorAll(".panel")], body = make("tbody");
  for (const panel of panels) {
    for (const row of panel.querySelector("table").tBodies[0].rows) {
      const button = make("button", { textContent: panel.querySelector("h3").textContent });
      button.setAttribute("popovertarget", panel.id);
      const seed = make("td", { textContent: row.cells[0].textContent });
      body.append(make("tr", {}, make("th", {}, button), seed, ...[...row.cells].slice(1).map((cell) => cell.cloneNode(true))));
    }
  }
  const heads = panels[0]?.querySelector("thead tr").cloneNode(true) ?? make("tr");
  heads.prepend(make("th", { scope: "col", textContent: "arm" }));
  place.append(make("div", { className: "wide" }, make("table", { className: "rows" }, make("caption", { textContent: "Runs" }), make("thead", {}, heads), body)));
}
const value = (row, i) => row.cells[i].textContent.trim();
const number = (text) => /^\d{4}-\d\d-\d\d/.test(text) ? NaN : parseFloat(text.replace(/\u2212/g, "-").replace(/,/g, ""));
for (const table of document.querySelectorAll("table.rows")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], all = [...body.rows];
  heads.forEach((head, i) => {
    const button = make("button", { className: "sort" }, ...head.childNodes);
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
  if (all.length < 10) continue;  // seen at once
  const input = make("input", { type: "search" }), count = make("output", { className: "faint", textContent: `${all.length} rows` });
  table.closest(".wide").before(make("div", { className: "filter" }, make("label", {}, "Rows with ", input), count));
  const texts = all.map((row) => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/), shown = texts.map((text) => words.every((word) => text.includes(word)));
    all.forEach((row, i) => { row.hidden = !shown[i]; });
    count.textContent = `${shown.filter(Boolean).length} of ${all.length} rows`;
  });
}
// Pictures become larger in their place, which scrolls: by buttons, by + - 0, by Ctrl and wheel, and by two clicks.
const TOOLS = [["+", 1.5, "+", "Larger"], ["-", 1 / 1.5, "\u2212", "Smaller"], ["0", 0, "reset", "Reset"]];
const zoomable = (shown) => {
  const place = make("div", { className: "wide" }), tools = make("div", { className: "zooms" });
  shown.replaceWith(tools, place);
  place.append(shown);
  let times = 1, width = 0;
  const zoom = (factor, x = place.clientWidth / 2, y = place.clientHeight / 2) => {
    width = times === 1 ? shown.getBoundingClientRect().width : width;
    const now = Math.min(16, Math.max(1, times * factor)), [left, top] = [place.scrollLeft + x, place.scrollTop + y];
    place.classList.toggle("zoomed", now > 1);
    Object.assign(shown.style, now > 1 ? { width: `${width * now}px`, height: "auto" } : { width: "", height: "" });
    place.scrollTo(left * now / times - x, top * now / times - y);
    times = now;
  };
  for (const [, factor, sign, said] of TOOLS) {
    const button = make("button", { textContent: sign, ariaLabel: `${said}: ${shown.alt ?? shown.getAttribute("aria-label")}` });
    button.addEventListener("click", () => zoom(factor));
    tools.append(button);
  }
  const at = (event) => [event.clientX - place.getBoundingClientRect().left, event.clientY - place.getBoundingClientRect().top];
  place.addEventListener("keydown", (event) => TOOLS.forEach(([key, factor]) => { if (key === event.key) zoom(factor); }));
  place.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 1 / 1.5 : 1.5, ...at(event)));
  place.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...at(event));
  }, { passive: false });
};
const ready = (part) => {  // what scrolls is reached by the keyboard, and has a name; panels when they open
  const mine = (kind) => [...(part ?? document).querySelectorAll(kind)].filter((one) => one.closest(".panel") === part);
  mine("figure > svg, figure > img").forEach(zoomable);
  for (const place of mine(".wide")) {
    const held = place.querySelector("svg, img, caption, thead");
    Object.assign(place, { tabIndex: 0, role: "group", ariaLabel: held.alt ?? held.getAttribute("aria-label") ?? held.textContent });
  }
};
ready(null);
for (const panel of document.querySelectorAll(".panel")) {
  panel.addEventListener("beforetoggle", () => {
    panel.querySelector("dl").append(...panel.parentNode.querySelector(".made").cloneNode(true).children);
    ready(panel);
  }, { once: true });
}
const tip = document.getElementById("tip");
const said = (line, event) => {  // the point of a curve that is nearest to the pointer; curves are drawn in their own units
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(line.getScreenCTM().inverse());
  const far = (point) => Math.abs(point.x - at.x), { x, y, seeds } = line.parentNode.dataset;
  const found = [...line.points].reduce((best, point) => far(point) < far(best) ? point : best);
  const seed = seeds.split(" ")[[...line.parentNode.children].indexOf(line)];
  return `seed ${seed}: ${+(found.y * y).toPrecision(4)} at step ${(found.x * x).toLocaleString("en")}`;
};
for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, (event) => {  // a tap moves nothing
  const mark = event.target.closest?.(".mark, polyline"), title = mark?.querySelector("title");
  tip.hidden = !mark;
  if (!mark) return;
  if (title) { mark.dataset.tip = title.textContent; title.remove(); }  // else the browser shows it too
  tip.textContent = mark.points ? said(mark, event) : mark.dataset.tip;
  (mark.closest(".panel") ?? document.body).append(tip);  // a panel lies above the rest of the page
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
});
