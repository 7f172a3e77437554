// Tables that sort, the sliders of one's own chip, and forms that choose. All data come as JSON and are set as text.
"use strict";

function make(tag, text, parent) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function sortable(table) {
  const heads = table.querySelectorAll("thead th");
  heads.forEach((head, column) => {
    head.style.cursor = "pointer";
    head.title = "sort";
    head.addEventListener("click", () => {
      const upwards = head.dataset.order !== "up";
      heads.forEach((other) => delete other.dataset.order);
      head.dataset.order = upwards ? "up" : "down";
      const body = table.tBodies[0];
      const key = (row) => {
        const cell = row.cells[column];
        if (!cell || cell.textContent === "") return null;
        return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent;
      };
      const rows = [...body.rows].map((row, place) => [key(row), place, row]);
      rows.sort(([a, first], [b, second]) => {
        if (a === null || b === null) return (a === null) - (b === null) || first - second; // blanks last
        const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        return (upwards ? order : -order) || first - second;
      });
      body.append(...rows.map(([, , row]) => row));
    });
  });
}

function sliders(place) {
  const data = JSON.parse(place.dataset.widget);
  place.replaceChildren();
  const bases = make("select", undefined, make("label", "based on ", place));
  for (const name of data.bases) {
    const option = make("option", name, bases);
    option.selected = name === data.base;
  }
  bases.addEventListener("change", () => {
    location.search = "?" + new URLSearchParams({ base: bases.value });
  });
  const grid = make("div", undefined, place);
  grid.style.cssText = "display:grid;grid-template-columns:auto 1fr auto;gap:.2rem 1rem;align-items:center";
  const now = {};
  for (const field of data.fields) {
    make("label", field.label, grid).htmlFor = field.field;
    const slider = make("input", undefined, grid);
    slider.type = "range";
    slider.id = field.field;
    slider.min = 0;
    slider.max = field.choices.length - 1;
    slider.value = field.at;
    const shown = make("output", field.choices[field.at].toLocaleString("en"), grid);
    slider.addEventListener("input", () => {
      now[field.field] = field.choices[slider.value];
      shown.textContent = now[field.field].toLocaleString("en");
      ask();
    });
  }
  const answer = make("div", undefined, place);
  answer.setAttribute("aria-live", "polite");
  let asked = 0;
  let busy = false;
  let again = false;
  async function ask() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    const started = performance.now();
    const mine = ++asked;
    const response = await fetch("/api/chip?" + new URLSearchParams({ base: data.base, ...now }));
    const found = await response.json();
    if (mine === asked) show(found, performance.now() - started);
    busy = false;
    if (again) {
      again = false;
      ask();
    }
  }
  function show(found, milliseconds) {
    answer.replaceChildren();
    answer.dataset.milliseconds = milliseconds.toFixed(1);
    if (found.fault) {
      make("p", "Not a chip: " + found.fault, answer);
      return;
    }
    const table = make("table", undefined, answer);
    for (const [label, value, spread] of found.rows) {
      const row = make("tr", undefined, table);
      make("td", label, row);
      make("td", value, row).className = "right";
      make("td", spread, row).className = "right";
    }
    make("p", found.export + ".", answer);
  }
  ask();
}

function choose(place) {
  const data = JSON.parse(place.dataset.widget);
  place.replaceChildren();
  const form = make("form", undefined, place);
  form.action = data.to;
  for (const field of data.fields) {
    const select = make("select", undefined, make("label", " " + field.name + " ", form));
    select.name = field.name;
    for (const name of field.choices) make("option", name, select).selected = name === field.at;
  }
  make("button", "show", form);
}

document.querySelectorAll("table").forEach(sortable);
document.querySelectorAll(".sliders").forEach(sliders);
document.querySelectorAll(".choose").forEach(choose);
