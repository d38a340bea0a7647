// Tables sort by the column that is clicked (or chosen with Enter): numbers as numbers, then text; empty cells last.
"use strict";

const UNITS = { k: 1e3, K: 1e3, M: 1e6 };

function keyOf(cell) {
  const text = cell.textContent.trim();
  const number = text.match(/^([-−]?[\d,]*\.?\d+)\s*([kKM]?)(?![\w-])/);
  if (number) {
    return parseFloat(number[1].replace(/,/g, "").replace("−", "-")) * (UNITS[number[2]] || 1);
  }
  return text === "missing" || text === "–" ? "" : text;
}

function compare(left, right) {
  if (left === "" || right === "") return (left === "") - (right === ""); // empty stays last
  if (typeof left === "number" && typeof right === "number") return left - right;
  if (typeof left !== typeof right) return typeof left === "number" ? -1 : 1;
  return left.localeCompare(right);
}

function sortBy(header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column]), row]);
  const sign = descending ? -1 : 1;
  rows.sort(([left], [right]) => (left === "" || right === "" ? compare(left, right) : sign * compare(left, right)));
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const header of document.querySelectorAll("th")) {
  header.tabIndex = 0;
  header.addEventListener("click", () => sortBy(header));
  header.addEventListener("keydown", (event) => {
    if (event.key === "Enter") sortBy(header);
  });
}
