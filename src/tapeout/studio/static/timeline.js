// A trace on a canvas. Each row draws at most one span a pixel, found by halving, so that a move costs as much with
// 400,000 spans as with few.
"use strict";

const ROW = 22;
const LEFT = 190;
const COLOURS = ["#3b6ea8", "#d0722b", "#5b8c5a", "#8a5a9e", "#b0483f", "#4f8f9b", "#a08430", "#7a6a5a"];

function upper(values, wanted) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

class Timeline {
  constructor(place) {
    this.data = JSON.parse(place.dataset.widget);
    place.replaceChildren();
    this.bar = make("p", undefined, place);
    this.canvas = make("canvas", undefined, place);
    this.canvas.tabIndex = 0;
    this.canvas.style.cssText = "width:100%;display:block;cursor:grab;touch-action:none";
    this.details = make("div", undefined, place);
    this.details.style.minHeight = "8rem";
    this.pen = this.canvas.getContext("2d");
    this.load();
  }

  async load() {
    this.bar.textContent = "reading the trace";
    const response = await fetch(this.data.trace);
    const found = await response.json();
    if (found.fault) {
      this.bar.textContent = found.fault;
      return;
    }
    this.words = found.words;
    this.arrows = found.arrows.sort((a, b) => a[1] - b[1]);
    this.arrowStarts = Float64Array.from(this.arrows, (arrow) => arrow[1]);
    this.tracks = found.tracks.map((track) => ({
      ...track,
      starts: Float64Array.from(track.starts),
      lengths: Float64Array.from(track.lengths),
    }));
    this.counters = Object.entries(found.counters).map(([name, points]) => ({
      name,
      times: Float64Array.from(points, (point) => point[0]),
      values: Float64Array.from(points, (point) => point[1]),
      most: points.reduce((most, point) => Math.max(most, point[1]), 0),
    }));
    this.end = found.end || 1;
    this.from = 0;
    this.to = this.end;
    this.spans = this.tracks.reduce((sum, track) => sum + track.starts.length, 0);
    this.bar.textContent = `${this.spans.toLocaleString("en")} spans; ${found.holds} `;
    const open = make("button", "open in Perfetto (online)", this.bar);
    open.addEventListener("click", () => this.perfetto());
    this.listen();
    this.fit();
  }

  rows() {
    return this.tracks.length + this.counters.length;
  }

  fit() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = (this.rows() + 1) * ROW;
    this.canvas.style.height = this.height + "px";
    this.canvas.width = this.width * ratio;
    this.canvas.height = this.height * ratio;
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }

  listen() {
    new ResizeObserver(() => this.fit()).observe(this.canvas.parentElement);
    this.canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(event.deltaX / (this.width - LEFT));
        else this.zoom(Math.exp(event.deltaY / 300), event.offsetX);
      },
      { passive: false },
    );
    let held = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      held = { x: event.offsetX, y: event.offsetY, moved: false };
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      if (Math.abs(event.offsetX - held.x) > 2) held.moved = true;
      if (held.moved) {
        this.move((held.x - event.offsetX) / (this.width - LEFT));
        held.x = event.offsetX;
      }
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (held && !held.moved) this.pick(event.offsetX, event.offsetY);
      held = null;
    });
    this.canvas.addEventListener("keydown", (event) => {
      const key = event.key.toLowerCase();
      if (key === "w") this.zoom(0.7, this.width / 2);
      else if (key === "s") this.zoom(1 / 0.7, this.width / 2);
      else if (key === "a" || key === "arrowleft") this.move(-0.15);
      else if (key === "d" || key === "arrowright") this.move(0.15);
      else return;
      event.preventDefault();
    });
  }

  zoom(factor, x) {
    const share = Math.min(Math.max((x - LEFT) / (this.width - LEFT), 0), 1);
    const at = this.from + share * (this.to - this.from);
    const length = Math.min(Math.max((this.to - this.from) * factor, 0.01), this.end);
    this.show(at - share * length, length);
  }

  move(share) {
    const length = this.to - this.from;
    this.show(this.from + share * length, length);
  }

  show(from, length) {
    this.from = Math.min(Math.max(from, 0), this.end - length);
    this.to = this.from + length;
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.draw();
      });
    }
  }

  x(time) {
    return LEFT + ((time - this.from) / (this.to - this.from)) * (this.width - LEFT);
  }

  draw() {
    const started = performance.now();
    const pen = this.pen;
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink");
    const rule = style.getPropertyValue("--rule");
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.scale(pen, ink, rule);
    let row = 1;
    for (const track of this.tracks) this.drawTrack(track, row++ * ROW, pen, ink);
    for (const counter of this.counters) this.drawCounter(counter, row++ * ROW, pen, ink);
    this.drawArrows(pen, ink);
    this.canvas.dataset.milliseconds = (performance.now() - started).toFixed(2);
    this.canvas.dataset.drawn = String(Number(this.canvas.dataset.drawn || 0) + 1);
  }

  scale(pen, ink, rule) {
    const wanted = (this.to - this.from) / 6;
    const power = Math.pow(10, Math.floor(Math.log10(wanted)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= wanted);
    for (let time = Math.ceil(this.from / step) * step; time <= this.to; time += step) {
      const x = this.x(time);
      pen.fillStyle = rule;
      pen.fillRect(x, 0, 1, this.height);
      pen.fillStyle = ink;
      pen.fillText(nanoseconds(time, step), x + 3, ROW / 2);
    }
  }

  drawTrack(track, top, pen, ink) {
    pen.fillStyle = ink;
    pen.fillText(clip(`${track.process}: ${track.name}`, 30), 4, top + ROW / 2);
    const { starts, lengths, names } = track;
    const pixel = (this.to - this.from) / (this.width - LEFT);
    let index = Math.max(upper(starts, this.from) - 1, 0);
    while (index < starts.length && starts[index] <= this.to) {
      const begin = Math.max(this.x(starts[index]), LEFT);
      const end = Math.min(this.x(starts[index] + lengths[index]), this.width);
      if (end >= LEFT) {
        pen.fillStyle = COLOURS[names[index] % COLOURS.length];
        pen.fillRect(begin, top + 2, Math.max(end - begin, 1), ROW - 4);
        if (end - begin > 40) {
          pen.fillStyle = "#fff";
          pen.fillText(clip(this.words[names[index]], (end - begin) / 7), begin + 3, top + ROW / 2);
        }
      }
      const next = starts[index] + pixel; // what begins within this pixel cannot be seen
      index = index + 1 < starts.length && starts[index + 1] > next ? index + 1 : Math.max(upper(starts, next), index + 1);
    }
  }

  drawCounter(counter, top, pen, ink) {
    pen.fillStyle = ink;
    pen.fillText(clip(counter.name, 30), 4, top + ROW / 2);
    const { times, values, most } = counter;
    if (!most) return;
    pen.fillStyle = COLOURS[1];
    const pixel = (this.to - this.from) / (this.width - LEFT);
    let index = Math.max(upper(times, this.from) - 1, 0);
    while (index < times.length && times[index] <= this.to) {
      const begin = Math.max(this.x(times[index]), LEFT);
      const after = index + 1 < times.length ? times[index + 1] : this.end;
      const end = Math.min(this.x(after), this.width);
      const size = (values[index] / most) * (ROW - 4);
      if (end >= LEFT) pen.fillRect(begin, top + ROW - 2 - size, Math.max(end - begin, 1), size);
      index = Math.max(upper(times, times[index] + pixel), index + 1);
    }
  }

  drawArrows(pen, ink) {
    const first = upper(this.arrowStarts, this.from);
    const last = upper(this.arrowStarts, this.to);
    if (last - first > 500) return; // too many to tell apart
    pen.strokeStyle = ink;
    pen.globalAlpha = 0.6;
    for (let index = first; index < last; index++) {
      const [source, begin, target, end] = this.arrows[index];
      const y1 = (source + 1) * ROW + ROW / 2;
      const y2 = (target + 1) * ROW + ROW / 2;
      const x2 = this.x(end);
      pen.beginPath();
      pen.moveTo(this.x(begin), y1);
      pen.lineTo(x2, y2);
      pen.moveTo(x2 - 5, y2 - Math.sign(y2 - y1) * 5);
      pen.lineTo(x2, y2);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  async pick(x, y) {
    const track = this.tracks[Math.floor(y / ROW) - 1];
    if (!track || x < LEFT) return;
    const time = this.from + ((x - LEFT) / (this.width - LEFT)) * (this.to - this.from);
    const pixel = (this.to - this.from) / (this.width - LEFT);
    const index = upper(track.starts, time + pixel) - 1;
    if (index < 0 || track.starts[index] + Math.max(track.lengths[index], 2 * pixel) < time) return;
    const response = await fetch(this.data.details + "?event=" + track.events[index]);
    const facts = await response.json();
    this.details.replaceChildren();
    make("h2", this.words[track.names[index]], this.details);
    const table = make("table", undefined, this.details);
    const rows = {
      starts: nanoseconds(track.starts[index], 0.001),
      takes: nanoseconds(track.lengths[index], 0.001),
      ...facts,
    };
    for (const [name, value] of Object.entries(rows)) {
      const row = make("tr", undefined, table);
      make("td", name, row);
      make("td", value, row);
    }
  }

  async perfetto() {
    const response = await fetch(this.data.raw);
    const buffer = await response.arrayBuffer();
    const origin = "https://ui.perfetto.dev";
    const other = window.open(origin);
    if (!other) return;
    const asking = setInterval(() => other.postMessage("PING", origin), 100);
    window.addEventListener("message", (event) => {
      if (event.origin !== origin || event.data !== "PONG") return;
      clearInterval(asking);
      other.postMessage({ perfetto: { buffer, title: document.title } }, origin);
    });
    setTimeout(() => clearInterval(asking), 20000);
  }
}

function nanoseconds(time, step) {
  const [scale, unit] = time >= 1e9 ? [1e9, "s"] : time >= 1e6 ? [1e6, "ms"] : time >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  const digits = Math.min(Math.max(Math.ceil(-Math.log10(step / scale)), 0), 9);
  return (time / scale).toFixed(digits) + " " + unit;
}

function clip(text, letters) {
  return text.length > letters ? text.slice(0, Math.max(letters - 1, 1)) + "…" : text;
}

document.querySelectorAll(".timeline").forEach((place) => new Timeline(place));
