"use strict";
// Without JavaScript the page is whole: tables stand as they are, and browsers show the titles of marks themselves.

// Tables of class "sortable" are sorted by the button in a column's head; long ones can be searched.
const value = (cell) => Number.parseFloat(cell.textContent.replace("−", "-").replace("✗", ""));
const byNumber = (column) => (a, b) => {
  const x = value(a.cells[column]), y = value(b.cells[column]);
  return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : x - y;
};
const byText = (column) => (a, b) => a.cells[column].textContent.localeCompare(b.cells[column].textContent);
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = head.classList.contains("n"), order = numeric ? byNumber(column) : byText(column);
      const rows = [...body.rows];
      const last = (row) => numeric && Number.isNaN(value(row.cells[column]));  // undefined values stay at the end
      rows.sort((a, b) => (up || last(a) || last(b) ? order(a, b) : order(b, a)));
      body.append(...rows);
    });
  });
  if (body.rows.length > 30) {
    const filter = Object.assign(document.createElement("input"), { type: "search", className: "filter" });
    filter.placeholder = "Show rows with…";
    filter.setAttribute("aria-label", "Show only rows that contain these words");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
    table.parentElement.before(filter);
  }
}

// The numbers of a mark appear beside the pointer, or where a finger taps.
const tooltip = Object.assign(document.createElement("div"), { className: "tooltip", hidden: true });
tooltip.setAttribute("role", "status");
document.body.append(tooltip);
let shown = null;
const hide = () => { tooltip.hidden = true; shown?.classList.remove("on"); shown = null; };
for (const mark of document.querySelectorAll("svg .tip")) {
  const title = mark.querySelector("title"), text = title.textContent;
  title.remove();
  const show = () => {
    hide();
    shown = mark;
    mark.classList.add("on");
    tooltip.textContent = text;
    tooltip.hidden = false;
    const box = mark.getBoundingClientRect(), size = tooltip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - size.width - 8;
    tooltip.style.left = `${Math.max(8, Math.min(box.left + box.width / 2 - size.width / 2, right))}px`;
    tooltip.style.top = `${box.top > size.height + 8 ? box.top - size.height - 6 : box.bottom + 6}px`;
  };
  mark.addEventListener("pointerenter", show);
  mark.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
}
document.addEventListener("scroll", hide, { passive: true, capture: true });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

// An entry of a legend sets its lines off in all figures; a second press brings the others back.
const entries = [...document.querySelectorAll(".legend button")];
const series = [...document.querySelectorAll("svg [id*='-series-']")];
for (const entry of entries) {
  entry.addEventListener("click", () => {
    const chosen = entry.getAttribute("aria-pressed") === "true" ? null : entry.dataset.series;
    for (const other of entries) other.setAttribute("aria-pressed", String(other.dataset.series === chosen));
    for (const drawn of series) drawn.classList.toggle("quiet", chosen !== null && !drawn.id.includes(`-${chosen}.`));
  });
}
