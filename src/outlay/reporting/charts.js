// Line charts of the report. Reads the JSON in #data, draws SVG, follows the chosen currency, tells values under the pointer.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = [...document.querySelectorAll("figure[data-series]")];
  const view = { axis: data.units.length ? data.units[0].key : "steps", hidden: new Set() };
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const escaped = (text) => String(text).replace(/[&<>"']/g, (letter) => escapes[letter]);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const colour = (run) => `var(--c${run % 8})`;

  // ---- amounts in words -------------------------------------------------------------------------------------------------------------
  const significant = (value, digits) => String(Number(value.toPrecision(digits)));

  function short(value) {
    const size = Math.abs(value);
    for (const [factor, letter] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= factor) return significant(value / factor, 4) + letter;
    }
    return size && size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e") : significant(value, 4);
  }

  function duration(seconds) {
    const pad = (value) => String(value).padStart(2, "0");
    if (seconds < 60) return significant(seconds, 3) + "s";
    if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${pad(Math.floor(seconds % 60))}s`.replace(" 00s", "");
    if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${pad(Math.floor((seconds % 3600) / 60))}m`.replace(" 00m", "");
    return `${Math.floor(seconds / 86400)}d ${pad(Math.floor((seconds % 86400) / 3600))}h`.replace(" 00h", "");
  }

  function amount(unit, value) {
    if (unit === "seconds") return duration(value);
    if (unit === "share") return significant(100 * value, 3) + "%";
    return unit === "usd" ? "$" + significant(value, 3) : short(value);
  }

  // ---- where points lie -------------------------------------------------------------------------------------------------------------
  // The clock is known at some steps (knots); between them it runs evenly.
  function clockAt(run, positions) {
    const clock = run.clock[view.axis];
    if (!clock) return null;
    let k = 0;
    return positions.map((position) => {
      while (k < run.knots.length - 2 && run.knots[k + 1] < position) k += 1;
      const from = run.knots[k], to = run.knots[Math.min(k + 1, run.knots.length - 1)];
      const part = to > from ? (position - from) / (to - from) : 0;
      return clock[k] + part * (clock[Math.min(k + 1, clock.length - 1)] - clock[k]);
    });
  }

  function linesOf(figure) {
    const name = figure.dataset.series, found = [];
    data.runs.forEach((run, index) => {
      if (view.hidden.has(index)) return;
      if (figure.dataset.kind === "evaluation") {
        const ys = run.evaluations.metrics[name], xs = run.evaluations.at[view.axis];
        if (ys && xs) found.push(line(run, index, xs, ys, false, true));
        return;
      }
      const smooth = run.series[name + "~"], other = figure.dataset.other, beside = other && (run.series[other + "~"] || run.series[other]);
      for (const [series, faint, dashed] of [[run.series[name], Boolean(smooth), false], [smooth, false, false], [beside, false, true]]) {
        const xs = series && clockAt(run, series.i);
        if (xs) found.push({ ...line(run, index, xs, series.y, faint, false), dashed });
      }
    });
    return found.filter((one) => one.points.length);
  }

  const line = (run, index, xs, ys, faint, dots) =>
    ({ run, index, faint, dots, points: xs.map((x, i) => [x, ys[i]]).filter((point) => point[1] !== null && point[0] !== null) });

  // ---- ticks ------------------------------------------------------------------------------------------------------------------------
  const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

  function linearTicks(low, high, wanted, isTime) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough) || rough;
    if (isTime && rough > 1) step = TIMES.find((one) => one >= rough) || step;
    const ticks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(n * step);
    return ticks;
  }

  function logTicks(low, high, wanted) {
    const ticks = [], decades = Math.log10(high / low);
    const factors = decades > wanted ? [1] : decades > 1.5 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 7];
    const stride = Math.max(1, Math.ceil(decades / wanted));
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += stride) {
      for (const factor of factors) {
        const tick = factor * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    }
    return ticks;
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------------------------
  function range(values, log) {
    let low = Infinity, high = -Infinity;
    for (const value of values) if (!log || value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low > high) return null;
    if (log) return low === high ? [low / 2, high * 2] : [low / 1.08, high * 1.08];
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
  }

  function scalesOf(figure, lines, width, height) {
    const log = figure.dataset.scale === "log";
    const ys = range(lines.flatMap((one) => one.points.map((point) => point[1])), log);
    const xs = lines.flatMap((one) => one.points.map((point) => point[0]));
    if (!ys || !xs.length) return null;
    const low = Math.min(0, xs.reduce((a, b) => Math.min(a, b))), high = xs.reduce((a, b) => Math.max(a, b)) || 1;
    const yTicks = log ? logTicks(ys[0], ys[1], height / 45) : linearTicks(ys[0], ys[1], height / 50, false);
    const left = 12 + 6.6 * Math.max(2, ...yTicks.map((tick) => short(tick).length)), right = width - 14, top = 10, bottom = height - 26;
    const bend = log ? Math.log : (value) => value;
    const [from, to] = ys.map(bend);
    return {
      left, right, top, bottom, yTicks, log, low, high,
      xTicks: linearTicks(low, high, Math.max(2, (right - left) / 85), view.axis === "seconds"),
      x: (value) => left + ((value - low) / (high - low)) * (right - left),
      y: (value) => (log && value <= 0 ? bottom : bottom - ((bend(value) - from) / (to - from)) * (bottom - top)),
    };
  }

  const pathOf = (points, at) => points.map((point, i) => `${i ? "L" : "M"}${at.x(point[0]).toFixed(1)} ${at.y(point[1]).toFixed(1)}`).join("");

  function marksOf(at) {
    const shown = data.runs.map((run, index) => ({ run, index })).filter((one) => !view.hidden.has(one.index));
    if (shown.length !== 1) return "";
    let free = -Infinity; // labels that would touch the one before are left out
    return shown[0].run.marks.map((mark) => ({ mark, x: at.x(mark.at[view.axis]) })).sort((a, b) => a.x - b.x).map(({ mark, x }) => {
      if (!(x >= at.left - 1 && x <= at.right + 1)) return "";
      const long = 6.4 * mark.label.length, end = x + long > at.right, told = end ? x - 4 - long > free : x + 4 > free;
      if (told) free = end ? x : x + 8 + long;
      return `<line class="mark ${escaped(mark.kind)}" x1="${x}" x2="${x}" y1="${at.top}" y2="${at.bottom}"/>` +
        (told ? `<text x="${x + (end ? -4 : 4)}" y="${at.top + 9}" text-anchor="${end ? "end" : "start"}">${escaped(mark.label)}</text>` : "");
    }).join("");
  }

  function draw(figure) {
    const plot = figure.querySelector(".plot"), width = plot.clientWidth, height = plot.clientHeight;
    figure.drawnWidth = width;
    if (!width) return;
    const lines = linesOf(figure), at = scalesOf(figure, lines, width, height);
    figure.drawn = at && { lines: lines.filter((one) => !one.faint), at };
    if (!at) {
      plot.innerHTML = '<p class="empty">Nothing to draw on this axis.</p>';
      return;
    }
    const rows = at.yTicks.map((tick) => `<line class="grid" x1="${at.left}" x2="${at.right}" y1="${at.y(tick)}" y2="${at.y(tick)}"/>` +
      `<text x="${at.left - 7}" y="${at.y(tick) + 4}" text-anchor="end">${escaped(short(tick))}</text>`);
    const columns = at.xTicks.map((tick) => `<text x="${at.x(tick)}" y="${at.bottom + 19}" text-anchor="middle">${escaped(amount(view.axis, tick))}</text>`);
    const curves = lines.map((one) => `<path class="line${one.faint ? " faint" : ""}${one.dashed ? " other" : ""}" stroke="${colour(one.index)}" d="${pathOf(one.points, at)}"/>` +
      (one.dots || one.points.length === 1 ? one.points.filter((_, i) => one.points.length <= 60 || i === one.points.length - 1).map((point) =>
        `<circle r="2.6" fill="${colour(one.index)}" cx="${at.x(point[0]).toFixed(1)}" cy="${at.y(point[1]).toFixed(1)}"/>`).join("") : ""));
    plot.innerHTML = `<svg aria-hidden="true" viewBox="0 0 ${width} ${height}">${rows.join("")}${columns.join("")}${marksOf(at)}${curves.join("")}` +
      '<g class="over"></g></svg><div class="tip" hidden></div>';
    describe(figure, lines);
  }

  // A screen reader hears the course of every curve.
  function describe(figure, lines) {
    const told = lines.filter((one) => !one.faint).map((one) => {
      const ys = one.points.map((point) => point[1]);
      return `${one.run.name}${one.dashed ? ", dashed" : ""}: first ${short(ys[0])}, last ${short(ys[ys.length - 1])}, ` +
        `lowest ${short(ys.reduce((a, b) => Math.min(a, b)))}, highest ${short(ys.reduce((a, b) => Math.max(a, b)))}`;
    });
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", `${figure.dataset.series} by ${view.axis}. ${told.join(". ")}. Arrow keys read values.`);
  }

  // ---- reading values ---------------------------------------------------------------------------------------------------------------
  function nearest(points, x) {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle; else high = middle;
    }
    return x - points[low][0] <= points[high][0] - x ? points[low] : points[high];
  }

  function read(figure, x) {
    if (!figure.drawn) return;
    const { lines, at } = figure.drawn;
    figure.cursor = clamp(x, at.low, at.high);
    const found = lines.map((one) => ({ one, point: nearest(one.points, figure.cursor) }));
    // with one curve the read-out sits on its point
    const place = found.length === 1 ? found[0].point[0] : figure.cursor, px = at.x(place);
    figure.querySelector(".over").innerHTML = `<line class="cursor" x1="${px}" x2="${px}" y1="${at.top}" y2="${at.bottom}"/>` +
      found.map(({ one, point }) => `<circle r="4" fill="${colour(one.index)}" cx="${at.x(point[0])}" cy="${at.y(point[1])}"/>`).join("");
    const tip = figure.querySelector(".tip");
    tip.innerHTML = `<span class="soft">${escaped(amount(view.axis, place))}</span>` + found.map(({ one, point }) =>
      `<br><i class="swatch" style="background:${colour(one.index)}"></i>${data.runs.length > 1 ? escaped(one.run.name) + " " : ""}${one.dashed ? "dashed " : ""}<b>${escaped(significant(point[1], 5))}</b>`).join("");
    tip.hidden = false;
    const room = figure.querySelector(".plot").clientWidth;
    tip.style.left = `${clamp(px + 14 + tip.offsetWidth > room ? px - 14 - tip.offsetWidth : px + 14, 0, Math.max(0, room - tip.offsetWidth))}px`;
  }

  function clear(figure) {
    const tip = figure.querySelector(".tip"), over = figure.querySelector(".over");
    if (tip) tip.hidden = true;
    if (over) over.innerHTML = "";
  }

  function listen(figure) {
    const plot = figure.querySelector(".plot");
    plot.addEventListener("pointermove", (event) => {
      if (!figure.drawn) return;
      const { at } = figure.drawn, px = event.clientX - plot.getBoundingClientRect().left;
      read(figure, at.low + ((px - at.left) / (at.right - at.left)) * (at.high - at.low));
    });
    plot.addEventListener("pointerleave", () => clear(figure));
    figure.addEventListener("blur", () => clear(figure));
    figure.addEventListener("keydown", (event) => {
      if (event.target !== figure || !figure.drawn || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      event.preventDefault();
      const { at } = figure.drawn, move = ((event.key === "ArrowRight" ? 1 : -1) * (at.high - at.low)) / 50;
      read(figure, (figure.cursor ?? at.low) + move);
    });
    const choice = figure.querySelector("select");
    if (choice) choice.addEventListener("change", () => { figure.dataset.series = choice.value; draw(figure); });
    for (const button of figure.querySelectorAll("[data-scale]")) {
      button.addEventListener("click", () => { figure.dataset.scale = button.dataset.scale; press(figure, "scale", button.dataset.scale); draw(figure); });
    }
  }

  const press = (within, key, value) => within.querySelectorAll(`button[data-${key}]`).forEach((button) =>
    button.setAttribute("aria-pressed", String(button.dataset[key] === value)));

  for (const figure of figures) listen(figure);
  for (const button of document.querySelectorAll("[data-axis]")) {
    button.addEventListener("click", () => { view.axis = button.dataset.axis; press(document, "axis", view.axis); figures.forEach(draw); });
  }
  for (const button of document.querySelectorAll("[data-run]")) {
    button.addEventListener("click", () => {
      const run = Number(button.dataset.run), shown = view.hidden.delete(run);
      if (!shown) view.hidden.add(run);
      button.setAttribute("aria-pressed", String(shown));
      figures.forEach(draw);
    });
  }
  figures.forEach(draw);
  const resized = () => figures.filter((figure) => figure.querySelector(".plot").clientWidth !== figure.drawnWidth).forEach(draw);
  new ResizeObserver(() => requestAnimationFrame(resized)).observe(document.querySelector("main"));
})();
