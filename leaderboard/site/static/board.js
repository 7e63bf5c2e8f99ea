"use strict";
// Sorting, filtering, column choice and theme, kept in the address; every number is on the page without it.
(function () {
  const text = location.hash.slice(1);
  const state = new URLSearchParams(text.includes("=") ? text : "");

  function keep(name, value) {
    if (value) state.set(name, value); else state.delete(name);
    const all = state.toString();
    history.replaceState(null, "", all ? "#" + all : location.pathname + location.search);
  }

  // ---- sorting

  // A cell's number: what it says where it holds no value of its own; "" and words count as missing.
  function numberOf(cell) {
    if (cell.dataset.value !== undefined) return parseFloat(cell.dataset.value);
    return parseFloat(cell.textContent.trim().replace("\u2212", "-").replace(/^\+/, "").replace(/,/g, ""));
  }

  function sort(table, column, direction) {
    const heads = [...table.tHead.rows[0].cells];
    const numeric = heads[column].dataset.sort === "number";
    const rows = [...table.tBodies[0].rows].map((row, i) => {
      const cell = row.cells[column];
      return [numeric ? numberOf(cell) : cell.textContent.trim(), i, row];
    });
    rows.sort((a, b) => {
      if (!numeric) return direction * a[0].localeCompare(b[0], "en", { numeric: true }) || a[1] - b[1];
      const x = Number.isNaN(a[0]), y = Number.isNaN(b[0]);
      if (x || y) return x === y ? a[1] - b[1] : x ? 1 : -1;
      return direction * (a[0] - b[0]) || a[1] - b[1];
    });
    table.tBodies[0].append(...rows.map((r) => r[2]));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  function sortButton(table, head, column) {
    const button = document.createElement("button");
    button.type = "button";
    const order = document.createElement("span");
    order.className = "order";
    order.setAttribute("aria-hidden", "true");
    const link = head.querySelector("a");
    if (link) {
      button.setAttribute("aria-label", "sort by " + link.textContent.trim());
      link.after(button);
    } else {
      button.append(...[...head.childNodes].filter((n) => n.nodeName !== "SMALL"));
      head.prepend(button);
    }
    button.append(order);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.sort === "number" && head.dataset.key !== "rank" ? -1 : 1;
      const direction = now ? (now === "ascending" ? -1 : 1) : first;
      sort(table, column, direction);
      keep("sort." + table.id, head.dataset.key + (direction > 0 ? ":up" : ":down"));
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => { if (head.dataset.sort) sortButton(table, head, column); });
    const kept = state.get("sort." + table.id);
    if (kept) {
      const column = heads.findIndex((head) => head.dataset.key === kept.slice(0, kept.lastIndexOf(":")));
      if (column >= 0) sort(table, column, kept.endsWith(":up") ? 1 : -1);
    }
  }

  // ---- filter

  const filter = document.getElementById("filter");
  if (filter) {
    const shown = document.getElementById("shown");
    const rows = [...document.querySelectorAll("table.filterable tbody tr")];
    filter.closest(".tools").hidden = false;
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of rows) {
        const name = row.textContent.toLowerCase();
        row.hidden = !row.classList.contains("ref") && !words.every((word) => name.includes(word));
        left += row.hidden ? 0 : 1;
      }
      shown.textContent = words.length ? left + " of " + rows.length + " rows" : "";
      if (words.length) for (const box of document.querySelectorAll("details.tier")) box.open = true;
    };
    filter.value = state.get("find") || "";
    if (filter.value) apply();
    filter.addEventListener("input", () => { apply(); keep("find", filter.value.trim()); });
  }

  // ---- columns

  const NAMES = {
    "c-summary": "headline intervals", "c-rank": "ranks and ties", "c-counts": "task counts", "c-cost": "step time",
    "c-interval": "intervals", "c-picture": "pictures", "c-size": "seconds and size", "c-slot": "slot",
    "c-pde": "PDE tasks", "c-rlvr": "RLVR tasks",
  };
  const columns = document.getElementById("columns");
  if (columns) {
    const groups = new Set();
    for (const head of document.querySelectorAll("table.sortable thead th, table.sortable tbody tr:first-child small")) {
      for (const name of head.classList) if (name.startsWith("c-")) groups.add(name);
    }
    const hidden = new Set((state.get("hide") || "").split(",").filter(Boolean));
    const rules = document.head.appendChild(document.createElement("style"));
    const apply = () => {
      rules.textContent = [...hidden].map((name) => ".sortable ." + CSS.escape("c-" + name)).join(", ") + (hidden.size ? " { display: none; }" : "");
    };
    for (const name of groups) {
      const label = columns.appendChild(document.createElement("label"));
      const box = document.createElement("input");
      const key = name.slice(2);
      box.type = "checkbox";
      box.checked = !hidden.has(key);
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(key); else hidden.add(key);
        apply();
        keep("hide", [...hidden].sort().join(","));
      });
      label.append(box, " " + (NAMES[name] || key + " tasks"));
    }
    columns.hidden = groups.size === 0;
    apply();
  }

  // ---- copying

  for (const code of document.querySelectorAll("code.copy")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl-C";
    });
    code.after(button);
  }

  // ---- theme

  const theme = document.getElementById("theme");
  if (theme) {
    const root = document.documentElement;
    const stored = () => { try { return localStorage.getItem("levelfield-theme"); } catch (error) { return null; } };
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
    const label = () => { theme.textContent = isDark() ? "light mode" : "dark mode"; };
    const chosen = state.get("theme") || stored();
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
    label();
    theme.hidden = false;
    theme.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("levelfield-theme", root.dataset.theme); } catch (error) { /* a private window keeps nothing */ }
      keep("theme", root.dataset.theme);
      label();
    });
  }
})();
