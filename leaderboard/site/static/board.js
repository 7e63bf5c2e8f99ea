"use strict";
// Sorting, filtering, column choice and theme, kept in the address; every number is on the page without it.
(function () {
  const text = location.hash.slice(1);
  const state = new URLSearchParams(text.includes("=") ? text : "");

  // Another view's address pasted into this page; our own changes of it raise no event.
  addEventListener("hashchange", () => { if (location.hash.includes("=")) location.reload(); });

  function keep(name, value) {
    if (value) state.set(name, value); else state.delete(name);
    const all = state.toString();
    history.replaceState(null, "", all ? "#" + all : location.pathname + location.search);
  }

  // ---- sorting

  // A cell's text without its small print, whose digits would run on from its own.
  function large(cell) {
    return [...cell.childNodes].map((part) => (part.nodeName === "SMALL" ? "" : part.textContent)).join("").trim();
  }

  // A cell's number: what it says where it holds no value of its own; "" and words count as missing.
  function numberOf(cell) {
    if (cell.dataset.value !== undefined) return parseFloat(cell.dataset.value);
    return parseFloat(large(cell).replace(/\u2212/g, "-").replace(/^\+/, "").replace(/,/g, ""));
  }

  function sort(table, column, direction) {
    const heads = [...table.tHead.rows[0].cells];
    const numeric = heads[column].dataset.sort === "number";
    const rows = [...table.tBodies[0].rows].map((row, i) => {
      const cell = row.cells[column];
      return [numeric ? numberOf(cell) : large(cell), i, row];
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
      const first = head.dataset.sort === "number" && !["rank", "group"].includes(head.dataset.key) ? -1 : 1;
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

  // ---- filter: words anywhere in a row, and one value of a column

  // What a cell says, its small print left out.
  function said(cell) {
    const copy = cell.cloneNode(true);
    for (const part of copy.querySelectorAll("small, svg, .order, .off" + (cell.tagName === "TD" ? ", button" : ""))) part.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  }

  const filter = document.getElementById("filter");
  if (filter) {
    const shown = document.getElementById("shown");
    const tables = [...document.querySelectorAll("table.filterable")];
    const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
    const choices = new Map();  // column's key -> [its selection, [row, value] of every row that has the column]
    filter.closest(".tools").hidden = false;
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const away = new Set();
      for (const [select, values] of choices.values()) {
        if (select.value) for (const [row, value] of values) if (value !== select.value) away.add(row);
      }
      let left = 0;
      for (const row of rows) {
        const name = row.textContent.toLowerCase();
        row.hidden = !row.classList.contains("ref") && (away.has(row) || !words.every((word) => name.includes(word)));
        left += row.hidden ? 0 : 1;
      }
      const on = words.length > 0 || [...choices.values()].some(([select]) => select.value);
      shown.textContent = on ? left + " of " + rows.length + " rows" : "";
      if (on) for (const box of document.querySelectorAll("details.tier")) box.open = true;
    };
    for (const table of tables) {
      [...table.tHead.rows[0].cells].forEach((head, at) => {
        if (head.dataset.filter === undefined) return;
        const key = head.dataset.key;
        if (!choices.has(key)) choices.set(key, [document.createElement("select"), [], said(head)]);
        for (const row of table.tBodies[0].rows) {
          const cell = row.cells[at];
          choices.get(key)[1].push([row, cell.dataset.filter || said(cell)]);
        }
      });
    }
    for (const [key, [select, values, name]] of choices) {
      const found = [...new Set(values.map(([, value]) => value).filter(Boolean))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
      if (found.length < 2) { choices.delete(key); continue; }
      select.append(new Option("any", ""), ...found.map((value) => new Option(value, value)));
      const label = document.createElement("label");
      label.append(name + " ", select);
      document.getElementById("choices").append(label);
      select.value = state.get("only." + key) || "";
      if (select.selectedIndex < 0) select.value = "";
      select.addEventListener("change", () => { apply(); keep("only." + key, select.value); });
    }
    filter.value = state.get("find") || "";
    apply();
    filter.addEventListener("input", () => { apply(); keep("find", filter.value.trim()); });
  }

  // ---- columns

  const NAMES = {
    "c-summary": "headline intervals", "c-rank": "ranks and ties", "c-counts": "task counts", "c-cost": "step time",
    "c-interval": "intervals", "c-picture": "pictures", "c-beside": "tuned, equal seconds", "c-size": "seconds and size", "c-slot": "slot",
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
    columns.open = innerWidth > 640;
    apply();
  }

  // ---- the view as a file: rows and columns as they are shown

  function plain(text) {
    const number = text.replace(/\u2212/g, "-").replace(/,(?=\d{3})/g, "");
    return /^[+-]?\d*\.?\d+(e[+-]?\d+)?\u00d7?$/.test(number) ? number.replace(/^\+|\u00d7$/g, "") : text === "\u2013" ? "" : text;
  }

  // Names and rows of a table; small print is a column of its own, an interval two.
  function view(table) {
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const names = [], columns = [];
    const add = (name, values) => {
      if (!values.some(Boolean)) return;
      const ends = values.map((value) => value.split(" to ").map(plain));
      const interval = values.every((value, i) => !value || (ends[i].length === 2 && ends[i].every((end) => end !== "" && !Number.isNaN(Number(end)))));
      names.push(...(interval ? [name + " low", name + " high"] : [name]));
      columns.push(...(interval ? [0, 1].map((end) => ends.map((pair) => pair[end] || "")) : [values.map(plain)]));
    };
    let before = "";
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      if (getComputedStyle(head).display === "none") return;
      const name = head.dataset.key || [before, said(head)].join(" ").trim();
      before = head.dataset.key || before;
      add(name, rows.map((row) => said(row.cells[at])));
      add(name + " note", rows.map((row) => [...row.cells[at].querySelectorAll("small")].map((e) => e.textContent.trim()).filter(Boolean).join("; ")));
    });
    return [names, rows.map((_, i) => columns.map((column) => column[i]))];
  }

  const formats = {
    CSV: (names, rows) => [names, ...rows].map((row) => row.map((text) => {
      const safe = /^[=+@\t\r]|^-(?![\d.])/.test(text) ? "'" + text : text;  // no formula in a spreadsheet
      return /[",\n\r]/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
    }).join(",") + "\n").join(""),
    JSON: (names, rows) => JSON.stringify(rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i]]))), null, 1) + "\n",
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 3) continue;
    const line = document.createElement("p");
    line.className = "note take";
    line.append("This table as shown:");
    for (const format of Object.keys(formats)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format;
      button.setAttribute("aria-label", format + " of the table " + (table.closest(".scroll").getAttribute("aria-label") || table.id) + " as shown");
      button.addEventListener("click", () => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([formats[format](...view(table))], { type: format === "CSV" ? "text/csv" : "application/json" }));
        link.download = table.id.replace(/^t-/, "") + "." + format.toLowerCase();
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      });
      line.append(" ", button);
    }
    table.closest(".scroll").after(line);
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
