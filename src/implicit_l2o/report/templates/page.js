
"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showTheme = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to the light theme" : "Switch to the dark theme");
    button.setAttribute("aria-pressed", String(isDark()));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("implicit_l2o-theme", root.dataset.theme); } catch { /* not kept, then */ }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

  const holder = document.getElementById("samples-data");
  if (!holder) return;
  const { columns, count } = JSON.parse(holder.textContent);
  const VERDICTS = ["PASS", "WARN", "FAIL"];
  const PAGE = 25;
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const find = document.getElementById("find");
  const shown = document.getElementById("shown");
  const [previous, next] = ["previous", "next"].map((id) => document.getElementById(id));
  const worst = columns.find((column) => column.kind === "verdict");
  const status = columns.find((column) => column.name === "status" && column.kind === "word");
  const properties = columns.filter((column) => column.kind === "property");
  const state = { sorted: null, descending: false, verdict: "", words: [], page: 0, rows: [] };

  // The rule of implicit_l2o.report.numbers.value.
  const written = (value, kind) => {
    if (value === null) return "–";
    if (kind === "count") return String(value);
    if (value === 0) return "0";
    const [mantissa, power] = value.toExponential(3).split("e").map((part, i) => (i ? Number(part) : part));
    return power >= -3 && power < 5 ? value.toFixed(Math.max(0, 3 - power)) : `${mantissa}e${power}`;
  };
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const cell = (column, row, first) => {
    const value = column.values[row];
    const words = column.kind === "verdict" || column.kind === "word";
    const element = make(first ? "th" : "td", words ? "words" : "num");
    if (first) element.scope = "row";
    if (column.kind === "verdict") {
      if (value === null) element.textContent = "–";
      else element.append(make("span", `verdict ${VERDICTS[value]}`, VERDICTS[value]));
    } else if (column.kind === "word") {
      element.textContent = column.words[value];
    } else {
      element.textContent = written(value, column.kind);
      const code = column.kind === "property" ? column.verdicts[row] : "-";
      if (code !== "-") {
        const mark = make("span", `mark ${VERDICTS[code]}`);
        mark.title = VERDICTS[code];
        mark.append(make("span", "sr", ` ${VERDICTS[code]}`));
        element.append(mark);
      }
    }
    return element;
  };

  const haystack = (row) => {
    const parts = properties.filter((one) => one.verdicts[row] === "1" || one.verdicts[row] === "2").map((one) => one.name);
    if (status) parts.push(status.words[status.values[row]]);
    if (worst && worst.values[row] !== null) parts.push(VERDICTS[worst.values[row]]);
    return parts.join(" ").toLowerCase();
  };
  const matches = (row) =>
    (state.verdict === "" || worst.values[row] === Number(state.verdict)) &&
    (state.words.length === 0 ||
      state.words.every((word) => (/^#?\d+$/.test(word) ? Number(word.replace("#", "")) === row : haystack(row).includes(word))));

  const select = () => {
    const rows = [];
    for (let row = 0; row < count; row += 1) if (matches(row)) rows.push(row);
    if (state.sorted) {
      const { values } = state.sorted;
      const sign = state.descending ? -1 : 1;
      rows.sort((a, b) => {
        if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
        return sign * (values[a] - values[b]) || a - b;
      });
    }
    state.rows = rows;
    state.page = 0;
    draw();
  };
  const draw = () => {
    const start = state.page * PAGE;
    const rows = state.rows.slice(start, start + PAGE);
    const drawn = rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...columns.map((column, i) => cell(column, row, i === 0)));
      return line;
    });
    if (!drawn.length) {
      const nothing = make("td", "absent", "No sample matches.");
      nothing.colSpan = columns.length;
      const line = document.createElement("tr");
      line.append(nothing);
      drawn.push(line);
    }
    body.replaceChildren(...drawn);
    const all = state.rows.length.toLocaleString("en");
    shown.textContent = rows.length ? `${(start + 1).toLocaleString("en")} to ${(start + rows.length).toLocaleString("en")} of ${all}` : "0 samples";
    previous.disabled = state.page === 0;
    next.disabled = start + PAGE >= state.rows.length;
  };

  heads.forEach((head, i) => {
    const sort = make("button", "sort", head.textContent);
    sort.type = "button";
    head.replaceChildren(sort);
    head.setAttribute("aria-sort", "none");
    sort.addEventListener("click", () => {
      state.descending = state.sorted === columns[i] && !state.descending;
      state.sorted = columns[i];
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      select();
    });
  });
  const search = () => {
    state.words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    select();
  };
  find.addEventListener("input", search);
  document.querySelectorAll("input[name=verdict]").forEach((radio) =>
    radio.addEventListener("change", () => {
      state.verdict = radio.value;
      select();
    }));
  previous.addEventListener("click", () => { state.page -= 1; draw(); });
  next.addEventListener("click", () => { state.page += 1; draw(); });
  document.querySelectorAll("[data-find]").forEach((link) =>
    link.addEventListener("click", () => {
      document.querySelector("input[name=verdict][value='']").checked = true;
      state.verdict = "";
      find.value = `#${link.dataset.find}`;
      search();
    }));
  // A browser may restore the inputs of a page that is loaded again.
  const checked = document.querySelector("input[name=verdict]:checked");
  state.verdict = checked ? checked.value : "";
  search();
})();
