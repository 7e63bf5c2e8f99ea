"use strict";
// Sorting, filtering and the theme; every number is on the page without it.
(function () {
  const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

  function keep() {
    const text = state.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  function sort(table, column, direction) {
    const heads = [...table.tHead.rows[0].cells];
    const numeric = heads[column].dataset.sort === "number";
    const value = (row) => {
      const cell = row.cells[column];
      if (!cell) return numeric ? NaN : "";
      return numeric ? parseFloat(cell.dataset.value ?? cell.textContent) : cell.textContent.trim();
    };
    const rows = [...table.tBodies[0].rows].map((row, i) => [value(row), i, row]);
    rows.sort((a, b) => {
      if (numeric) {
        const x = Number.isNaN(a[0]), y = Number.isNaN(b[0]);
        if (x || y) return x === y ? a[1] - b[1] : x ? 1 : -1;
        return direction * (a[0] - b[0]) || a[1] - b[1];
      }
      return direction * a[0].localeCompare(b[0]) || a[1] - b[1];
    });
    table.tBodies[0].append(...rows.map((r) => r[2]));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...[...head.childNodes].filter((n) => n.nodeName !== "A" && n.nodeName !== "SMALL"));
      if (!button.textContent.trim()) {
        button.textContent = "";
        button.setAttribute("aria-label", "sort by " + head.textContent.trim());
        button.append("↕");
      }
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.dataset.sort === "number" ? -1 : 1;
        const direction = head.hasAttribute("aria-sort") ? (head.getAttribute("aria-sort") === "ascending" ? -1 : 1) : first;
        sort(table, column, direction);
        state.set("sort-" + table.id, column + (direction > 0 ? "a" : "d"));
        keep();
      });
    });
    const kept = state.get("sort-" + table.id);
    if (kept) sort(table, parseInt(kept, 10), kept.endsWith("a") ? 1 : -1);
  }

  const filter = document.getElementById("filter");
  if (filter) {
    filter.closest("[hidden]").hidden = false;
    const apply = () => {
      const word = filter.value.trim().toLowerCase();
      for (const row of document.querySelectorAll("tr[data-name]")) row.hidden = word !== "" && !row.dataset.name.includes(word);
    };
    filter.value = state.get("find") || "";
    apply();
    filter.addEventListener("input", () => {
      if (filter.value) state.set("find", filter.value); else state.delete("find");
      apply();
      keep();
    });
  }

  const theme = document.getElementById("theme");
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("theme"); } catch (error) { return null; } };
  if (stored()) root.dataset.theme = stored();
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch (error) { /* a private window keeps nothing */ }
  });
})();
