{% include "page.js" %}

(() => {
  const $ = (id) => document.getElementById(id);
  const { picture, inputs, gradient, properties, samples, values: valuesName } = JSON.parse($("player-data").textContent);
  const VERDICTS = ["PASS", "WARN", "FAIL"];
  const SVG = "http://www.w3.org/2000/svg";
  const trouble = (message) => { $("trouble").textContent = message; $("trouble").hidden = false; };

  // Elements; texts are set as texts, so that no name can act.
  const svg = (tag, attributes = {}, text) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const html = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  // The rule of implicit_l2o.report.numbers.value.
  const written = (value) => {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const [mantissa, power] = value.toExponential(3).split("e").map((part, i) => (i ? Number(part) : part));
    return power >= -3 && power < 5 ? value.toFixed(Math.max(0, 3 - power)) : `${mantissa}e${power}`;
  };
  const short = (value) => {
    const [digits, power] = written(value).split("e");
    const plain = digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
    return power === undefined ? plain : `${plain}e${power}`;
  };

  // Packed frames: base64 of zlib of differences from frame to frame, eight bits a value.
  const unpack = async (packed) => {
    if (!packed) return null;
    const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const levels = new Uint8Array(await new Response(stream).arrayBuffer());
    const { count, size, low, high } = packed;
    for (let i = size; i < count * size; i += 1) levels[i] = (levels[i] + levels[i - size]) & 255;
    const scale = (high - low) / 255;
    return {
      low, high, count, size,
      frame: (k) => Float64Array.from(levels.subarray(k * size, (k + 1) * size), (level) => low + scale * level),
    };
  };

  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const rgb = (name) => {
      const colour = style.getPropertyValue(name).trim().slice(1);
      return [0, 2, 4].map((i) => parseInt(colour.slice(i, i + 2), 16));
    };
    return { paper: rgb("--card"), more: rgb("--blue"), less: rgb("--vermillion") };
  };
  const mixed = (from, to, t) => from.map((part, i) => part + (to[i] - part) * t);

  // How a layout draws values: `window` says which values are the ends; `signed` that zero is the middle.
  const drawers = {
    pixels(layout, { low, high, signed }, label) {
      const canvas = html("canvas");
      [canvas.width, canvas.height] = [layout.width, layout.height];
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
      const context = canvas.getContext("2d");
      const image = context.createImageData(layout.width, layout.height);
      const draw = (values) => {
        const { paper, more, less } = theme();
        const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
        for (let i = 0; i < layout.width * layout.height; i += 1) {
          let colour;
          if (layout.colours && !signed) {
            colour = [0, 1, 2].map((c) => 255 * (values[3 * i + c] - low) / (high - low));
          } else if (signed) {
            const value = layout.colours ? (values[3 * i] + values[3 * i + 1] + values[3 * i + 2]) / 3 : values[i];
            const t = Math.max(-1, Math.min(1, value / most));
            colour = mixed(paper, t < 0 ? less : more, Math.abs(t));
          } else {
            const t = (values[i] - low) / (high - low);
            colour = layout.heat ? mixed(paper, more, Math.max(0, Math.min(1, t))) : [255 * t, 255 * t, 255 * t];
          }
          image.data.set([...colour, 255], 4 * i);
        }
        context.putImageData(image, 0, 0);
      };
      return { element: canvas, draw };
    },
    edges(layout, { low, high }, label) {
      const room = 0.07;
      const [width, height] = layout.box;
      const element = svg("svg", {
        viewBox: `${-room} ${-room} ${width + 2 * room} ${height + 2 * room}`, role: "img", "aria-label": label,
      });
      const lengths = layout.lines.map(([x1, y1, x2, y2]) => Math.hypot(x2 - x1, y2 - y1)).filter((length) => length > 0);
      lengths.sort((a, b) => a - b);
      const widest = Math.min(0.06, Math.max(0.014, 0.28 * (lengths[lengths.length >> 1] || 0.1)));
      const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
      const path = ([x1, y1, x2, y2]) => `M${x1} ${y1}L${x2} ${y2}`;
      element.append(svg("path", { class: "edge under", d: layout.lines.map(path).join("") }));
      const edges = layout.lines.map((line) => svg("path", { class: "edge", d: path(line) }));
      element.append(...edges);
      for (const [name, x, y] of layout.marks) {
        const size = name.length > 2 ? 0.02 : 0.034;
        element.append(svg("circle", { class: "place", cx: x, cy: y, r: size }));
        element.append(svg("text", { class: "place-text", x, y, "font-size": 1.2 * size }, name));
      }
      const draw = (values) => edges.forEach((edge, i) => {
        const share = Math.min(1, Math.abs(values[i]) / most);
        edge.setAttribute("class", `edge ${values[i] < 0 ? "less" : "more"}`);
        edge.setAttribute("stroke-width", share < 0.006 ? 0 : Math.max(0.002, widest * share).toFixed(4));
        edge.style.display = share < 0.006 ? "none" : "";
      });
      return { element, draw };
    },
    bars(layout, { low, high, size }, label, target) {
      const [width, height, left, bottom] = [560, 250, 52, layout.names.length ? 26 : 22];
      const element = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
      const [least, most] = [Math.min(low, 0), Math.max(high, 0)];
      const span = most - least || 1;
      const y = (value) => 8 + (height - 8 - bottom) * (1 - (value - least) / span);
      const slot = (width - left - 8) / size;
      const x = (i) => left + slot * i;
      for (const value of ticks(least, most, 4)) {
        element.append(svg("line", { class: "rule", x1: left, x2: width - 8, y1: y(value), y2: y(value) }));
        element.append(svg("text", { class: "label", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
      }
      const every = Math.max(1, Math.ceil(size / 12));
      for (let i = 0; i < size; i += every) {
        const name = layout.names[i] === undefined ? String(i) : layout.names[i];
        element.append(svg("text", { class: "label", x: x(i + 0.5), y: height - 6, "text-anchor": "middle" }, name));
      }
      const wide = size > 60;
      const points = (values) => [...values].map((value, i) => `${x(i + 0.5).toFixed(1)},${y(clamped(value)).toFixed(1)}`).join(" ");
      const clamped = (value) => Math.max(least, Math.min(most, value));
      const boxes = [];
      const curve = svg("polyline", { class: "trace" });
      if (wide) {
        if (target) element.append(svg("polyline", { class: "trace goal", points: points(target) }));
        element.append(curve);
      } else {
        for (let i = 0; i < size; i += 1) {
          boxes.push(svg("rect", { x: x(i + 0.16), width: 0.68 * slot }));
          element.append(boxes[i]);
          if (!target) continue;
          const [a, b] = [y(clamped(target[i])), y(clamped(0))];
          element.append(svg("rect", {
            class: "goal", x: x(i + 0.08), width: 0.84 * slot, y: Math.min(a, b), height: Math.max(0.5, Math.abs(a - b)),
          }));
        }
      }
      element.append(svg("line", { class: "axis", x1: left, x2: width - 8, y1: y(0), y2: y(0) }));
      const draw = (values) => {
        if (wide) { curve.setAttribute("points", points(values)); return; }
        boxes.forEach((box, i) => {
          const [a, b] = [y(clamped(values[i])), y(0)];
          box.setAttribute("class", values[i] < 0 ? "bar below" : "bar");
          box.setAttribute("y", Math.min(a, b));
          box.setAttribute("height", Math.abs(a - b));
        });
      };
      return { element, draw };
    },
  };

  const ticks = (low, high, count) => {
    const raw = (high - low) / count || 1;
    const base = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * base).find((one) => one >= raw) || raw;
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push(n === 0 ? 0 : Number((n * step).toPrecision(12)));
    return found;
  };

  // A figure with a heading, a drawing and a caption.
  const tile = (heading, element, caption) => {
    const figure = html("figure");
    figure.append(html("h3", "", heading), element);
    if (caption) figure.append(caption);
    return figure;
  };
  const colourKey = (...parts) => {
    const caption = html("figcaption");
    parts.forEach(([kind, text], i) => {
      if (i) caption.append("  ");
      if (kind) caption.append(html("i", `key ${kind}`));
      caption.append(text);
    });
    return caption;
  };

  // A curve over the iterations; zeros stand at the lower end of a logarithmic axis.
  const chart = (sample, values, { label, limit, seek }) => {
    const [width, height, left, right, top, bottom] = [470, 268, 58, 12, 10, 40];
    const element = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    const last = sample.steps[sample.steps.length - 1];
    const dense = last > sample.steps.length + 1;
    const along = (step) => (dense ? Math.log1p(step) : step);
    const x = (step) => left + (width - left - right) * along(step) / (along(last) || 1);
    const positive = [...values, limit].filter((value) => value > 0).map(Math.log10);
    let [low, high] = positive.length ? [Math.floor(Math.min(...positive)), Math.ceil(Math.max(...positive))] : [-1, 0];
    if (high <= low) high = low + 1;
    const zero = values.some((value) => value === 0);
    if (zero) low -= 1;
    const y = (value) => top + (height - top - bottom) * (1 - (Math.max(low, value > 0 ? Math.log10(value) : low) - low) / (high - low));
    const every = Math.ceil((high - low) / 6);
    for (let power = low; power <= high; power += every) {
      const text = zero && power === low ? "0" : `1e${power}`;
      element.append(svg("line", { class: "rule", x1: left, x2: width - right, y1: y(10 ** power), y2: y(10 ** power) }));
      element.append(svg("text", { class: "label", x: left - 7, y: y(10 ** power) + 4, "text-anchor": "end" }, text));
    }
    const marks = dense ? [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000].filter((step) => step <= last) : ticks(0, last, 6).filter(Number.isInteger);
    for (const step of marks) {
      element.append(svg("line", { class: "axis", x1: x(step), x2: x(step), y1: height - bottom, y2: height - bottom + 4 }));
      element.append(svg("text", { class: "label", x: x(step), y: height - bottom + 17, "text-anchor": "middle" }, String(step)));
    }
    element.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
    element.append(svg("text", { class: "label", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "iteration"));
    if (limit > 0) element.append(svg("line", { class: "limit", x1: left, x2: width - right, y1: y(limit), y2: y(limit) }));
    let [pieces, open] = ["", false];
    values.forEach((value, i) => {
      if (value === null) { open = false; return; }
      pieces += `${open ? "L" : "M"}${x(sample.steps[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      open = true;
    });
    const line = svg("line", { class: "cursor", y1: top, y2: height - bottom });
    const dot = svg("circle", { class: "dot", r: 5 });
    element.append(svg("path", { class: "trace", d: pieces || "M0 0" }), line, dot);
    const pick = (event) => {
      const box = element.getBoundingClientRect();
      const at = (event.clientX - box.left) * width / box.width;
      const apart = sample.steps.map((step) => Math.abs(x(step) - at));
      seek(apart.indexOf(Math.min(...apart)));
    };
    element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); pick(event); });
    element.addEventListener("pointermove", (event) => { if (event.buttons) pick(event); });
    const draw = (k) => {
      line.setAttribute("x1", x(sample.steps[k]));
      line.setAttribute("x2", x(sample.steps[k]));
      dot.setAttribute("cx", x(sample.steps[k]));
      dot.setAttribute("cy", y(values[k]));
      dot.style.display = values[k] === null ? "none" : "";
    };
    return { element, draw };
  };

  // One row of the certificates: label, value, limits, and the labels of all frames.
  const row = (name, codes, values, limits, seek) => {
    const line = html("tr");
    const head = html("th", "", name);
    head.scope = "row";
    const label = html("span", "verdict");
    const cell = html("td");
    cell.append(label);
    const value = html("td", "num");
    const strip = svg("svg", { class: "strip", viewBox: `0 0 ${codes.length} 20`, preserveAspectRatio: "none", role: "img" });
    const counts = VERDICTS.map((word, code) => `${[...codes].filter((one) => Number(one) === code).length} ${word}`);
    strip.setAttribute("aria-label", `labels of ${codes.length} frames: ${counts.join(", ")}`);
    [...codes].forEach((code, i) => strip.append(svg("rect", {
      class: VERDICTS[code], x: i, width: 1.03, y: [0, 6, 12][code], height: [20, 14, 8][code],
    })));
    const cursor = svg("line", { class: "cursor", y1: -3, y2: 23 });
    strip.append(cursor);
    strip.addEventListener("pointerdown", (event) => {
      const box = strip.getBoundingClientRect();
      seek(Math.min(codes.length - 1, Math.floor(codes.length * (event.clientX - box.left) / box.width)));
    });
    const last = html("td", "frames");
    last.append(strip);
    line.append(head, cell, last, value, ...limits.map((limit) => html("td", "num", limit === null ? "–" : short(limit))));
    const draw = (k) => {
      label.className = `verdict ${VERDICTS[codes[k]]}`;
      label.textContent = VERDICTS[codes[k]];
      value.textContent = written(values[k]);
      cursor.setAttribute("x1", k + 0.5);
      cursor.setAttribute("x2", k + 0.5);
    };
    return { element: line, draw };
  };

  const state = { sample: null, frame: 0, parts: [], timer: null, loading: 0 };
  const slider = $("slider");
  const tableBody = $("judged") ? $("judged").tBodies[0] : null;

  const show = (k) => {
    const sample = state.sample;
    if (!sample) return;
    state.frame = Math.max(0, Math.min(sample.steps.length - 1, k));
    const frame = state.frame;
    state.parts.forEach((draw) => draw(frame));
    const step = sample.steps[frame];
    slider.value = String(frame);
    $("now").textContent = `iteration ${step} of ${sample.steps[sample.steps.length - 1]}`;
    const passing = sample.labels.filter((codes) => codes[frame] === "0").length;
    const judged = properties.length ? `, ${passing} of ${properties.length} certificates pass` : "";
    slider.setAttribute("aria-valuetext", `iteration ${step}: residual ${written(sample.residual[frame])}${judged}`);
    const verdict = $("verdict");
    if (verdict) {
      const codes = sample.labels.map((labels) => Number(labels[frame]));
      if (sample.tolerance !== null && sample.solved[frame] !== "1") codes.push(2);
      const worst = Math.max(0, ...codes);
      verdict.className = `verdict ${VERDICTS[worst]}`;
      verdict.textContent = `${VERDICTS[worst]} at iteration ${step}`;
    }
    $("back").disabled = frame === 0;
    $("forth").disabled = frame === sample.steps.length - 1;
  };
  const pause = () => {
    clearInterval(state.timer);
    state.timer = null;
    $("play").textContent = "Play";
  };
  const play = () => {
    if (state.timer !== null) { pause(); return; }
    if (state.frame === state.sample.steps.length - 1) show(0);
    $("play").textContent = "Pause";
    state.timer = setInterval(() => {
      show(state.frame + 1);
      if (state.frame === state.sample.steps.length - 1) pause();
    }, 1000 / Number($("speed").value));
  };
  const seek = (k) => { pause(); show(k); };

  // The tiles of a sample's iterate: itself, the target, their difference, the input.
  const stage = (sample, frames, target, seen) => {
    const parts = [];
    const tiles = $("tiles");
    tiles.replaceChildren();
    const bars = picture.kind === "bars";
    tiles.className = bars ? "stage wide" : "stage";
    const range = { low: frames.low, high: frames.high, size: frames.size };
    const goal = target && target.frame(0);
    const iterate = drawers[picture.kind](picture, range, `${valuesName} at this iteration`, goal);
    const caption = bars && goal ? colourKey(["more", "this iterate"], ["target", "target"])
      : colourKey([null, picture.kind === "pixels" && !picture.colours
        ? `${picture.heat ? "pale" : "black"} ${short(frames.low)}, ${picture.heat ? "deep" : "white"} ${short(frames.high)}`
        : picture.kind === "edges" ? `the widest line is ${short(Math.max(Math.abs(frames.low), Math.abs(frames.high)))}` : ""]);
    tiles.append(tile(valuesName, iterate.element, caption));
    parts.push((k) => iterate.draw(frames.frame(k)));
    if (goal && !bars) {
      const right = drawers[picture.kind](picture, range, "target");
      right.draw(goal);
      const most = picture.kind === "pixels" ? (frames.high - frames.low) / 4 : Math.max(Math.abs(frames.low), Math.abs(frames.high));
      const apart = drawers[picture.kind](picture, { low: -most, high: most, size: frames.size, signed: true }, "difference from the target");
      parts.push((k) => apart.draw(frames.frame(k).map((value, i) => value - goal[i])));
      tiles.append(tile("target", right.element));
      const ends = picture.kind === "pixels" ? ` (full colour from ${short(most)})` : "";
      tiles.append(tile("difference", apart.element, colourKey(["more", "too much"], ["less", `too little${ends}`])));
      parts.push(() => {});
    }
    if (seen) {
      const input = drawers[inputs.kind](inputs, { low: seen.low, high: seen.high, size: seen.size }, "input of the model");
      input.draw(seen.frame(0));
      const figure = tile("input d", input.element);
      figure.className = "input";
      tiles.append(figure);
    }
    return parts;
  };

  const compare = (sample, unpacked) => {
    const modes = $("modes");
    if (!modes) return;
    modes.replaceChildren();
    modes.className = gradient && gradient.kind === "bars" ? "stage half" : "stage pair";
    sample.gradients.forEach((mode, i) => {
      const values = unpacked[i];
      const note = colourKey([null, `norm ${written(mode.norm)}${mode.solved ? "" : ", adjoint equation not solved"}. `],
        ...(values ? [["more", "positive"], ["less", "negative"]] : []));
      const drawn = values && drawers[gradient.kind](gradient, { low: values.low, high: values.high, size: values.size, signed: true }, `gradient by ${mode.name}`);
      if (drawn) drawn.draw(values.frame(0));
      modes.append(tile(mode.name, drawn ? drawn.element : html("p", "absent", "There is no gradient."), note));
    });
    const [a, b] = sample.gradients;
    $("cosine").textContent = sample.cosine === null ? "There is no angle between them."
      : `Cosine between ${a.name} and ${b.name}: ${written(sample.cosine)}. Ratio of their norms: ${written(b.norm ? a.norm / b.norm : null)}.`;
  };

  const load = async (index) => {
    const ticket = ++state.loading;
    const sample = samples[index];
    pause();
    const [frames, target, seen, ...gradients] = await Promise.all(
      [sample.frames, sample.target, sample.inputs, ...sample.gradients.map((one) => one.values)].map(unpack));
    if (ticket !== state.loading) return; // another sample was chosen meanwhile
    const first = state.sample === null;
    const atEnd = first || state.frame === state.sample.steps.length - 1;
    state.sample = sample;
    $("ending").textContent = sample.ending;
    $("remarks").replaceChildren(...sample.remarks.map((remark) => html("li", "", remark)));
    state.parts = stage(sample, frames, target, seen);
    const panels = $("panels");
    panels.replaceChildren();
    const panel = (heading, values, options, caption) => {
      const drawn = chart(sample, values, options);
      const figure = tile(heading, drawn.element, caption && html("figcaption", "", caption));
      figure.className = "panel";
      panels.append(figure);
      state.parts.push((k) => drawn.draw(k));
    };
    panel("Residual |T(z) − z|", sample.residual, { label: "residual by iteration", limit: sample.tolerance, seek },
      sample.tolerance === null ? "" : `Dashed: the tolerance, ${short(sample.tolerance)}.`);
    if (sample.violation) {
      panel("Distance to the constraints", sample.violation, { label: "constraint violation by iteration", limit: null, seek },
        "The largest distance of the answer to a set of the problem.");
    } else {
      panels.append(html("p", "absent", "The problem states no constraints."));
    }
    if (tableBody) {
      tableBody.replaceChildren();
      const rows = [];
      if (sample.tolerance !== null) {
        const codes = [...sample.solved].map((flag) => (flag === "1" ? "0" : "2")).join("");
        rows.push(row("the solve has converged", codes, sample.residual, [sample.tolerance, sample.tolerance], seek));
      }
      properties.forEach((one, i) => rows.push(row(one.name, sample.labels[i], sample.measured[i], one.limits, seek)));
      tableBody.append(...rows.map((one) => one.element));
      state.parts.push(...rows.map((one) => one.draw));
    }
    compare(sample, gradients);
    state.redraw = () => compare(sample, gradients);
    slider.max = String(sample.steps.length - 1);
    show(atEnd ? sample.steps.length - 1 : state.frame);
    document.documentElement.dataset.ready = String(index);
  };

  slider.addEventListener("input", () => seek(Number(slider.value)));
  slider.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    play();
  });
  $("play").addEventListener("click", play);
  $("back").addEventListener("click", () => seek(state.frame - 1));
  $("forth").addEventListener("click", () => seek(state.frame + 1));
  $("speed").addEventListener("change", () => { if (state.timer !== null) { pause(); play(); } });
  // Colours of images are no part of the style: they are painted anew when the theme changes.
  const repaint = () => {
    if (!state.sample) return;
    const chosen = Number(document.querySelector("input[name=sample]:checked").value);
    choose(chosen);
  };
  const choose = (index) => load(index).catch((error) => trouble(`The iterates could not be unpacked: ${error.message}`));
  new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  document.querySelectorAll("input[name=sample]").forEach((radio) =>
    radio.addEventListener("change", () => choose(Number(radio.value))));
  // A browser may restore the inputs of a page that is loaded again.
  choose(Number((document.querySelector("input[name=sample]:checked") || { value: 0 }).value));
})();
