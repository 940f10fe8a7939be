// The arena over time: which buffer lives when and where, and the step at which most bytes are alive.

const buffersByName = new Map(data.memory ? [...data.memory.blocks, ...data.memory.external, ...data.memory.constants, ...data.memory.views].map((b) => [b.name, b]) : []);
const bufferNamed = (name) => buffersByName.get(name);
const sizeOf = (b) => (typeof b.size === "number" ? b.size : evaluate(b.size.tree, state.dims));

// The bytes in use during each kernel; those that a result shares with an operand count once.
function liveBytes(blocks) {
  const inOrder = [...blocks].sort((a, b) => a.at - b.at);
  return data.steps.map((_, k) => {
    let [sum, end] = [0, 0];
    for (const b of inOrder) {
      if (b.lives[0] > k || k > b.lives[1]) continue;
      sum += Math.max(0, b.at + b.bytes - Math.max(end, b.at));
      end = Math.max(end, b.at + b.bytes);
    }
    return sum;
  });
}

function niceStep(top, count) {
  const unit = 10 ** Math.floor(Math.log10(top / count));
  return [1, 2, 5, 10].map((k) => k * unit).find((s) => top / s <= count);
}

function drawMemory() {
  if (!data.memory || state.view !== "memory") return;
  const page = $("memory");
  const focused = document.activeElement?.dataset?.dim;
  const scroll = page.scrollTop;
  const blocks = data.memory.blocks.map((b) => ({ ...b, bytes: sizeOf(b), at: evaluate(b.offset.tree, state.dims) }));
  const arena = evaluate(data.memory.arena.tree, state.dims);
  const live = liveBytes(blocks);
  const peak = live.indexOf(Math.max(...live));
  const inputs = Object.keys(state.dims).map((name) => element("label", {}, `${name} =`, element("input", {
    type: "number", min: 0, step: 1, value: state.dims[name], "data-dim": name,
    oninput: (e) => { const n = e.target.valueAsNumber; if (Number.isInteger(n) && n >= 0) { state.dims[name] = n; drawMemory(); if (!state.selected) showPanel(); } },
  })));
  const external = data.memory.external.reduce((sum, b) => sum + sizeOf(b), 0);
  page.replaceChildren(
    element("h2", {}, "Scratch memory over time"),
    element("p", { class: "lead" }, "Each box is a buffer: as wide as the kernels during which it lives, as high as its bytes, where it lies in the arena. Boxes share bytes only if they are never alive together, or where a kernel writes its result over an operand (darker)."),
    inputs.length ? element("div", { class: "dims" }, inputs) : "",
    element("dl", { class: "figures" },
      figure("Arena", bytes(arena), `${grouped(arena)} bytes`),
      figure("Most alive at once", bytes(live[peak] || 0), live.length ? `at ${peak + 1}, ${data.kernels[data.steps[peak].kernel].name}` : ""),
      figure("All buffers apart", bytes(blocks.reduce((sum, b) => sum + b.bytes, 0)), plural(blocks.length, "buffer")),
      figure("The caller's memory", bytes(external), "inputs, variables, outputs")),
    Object.keys(state.dims).length ? element("p", { class: "formula" }, element("span", { class: "muted" }, "Arena = "), element("code", {}, data.memory.arena.text)) : "",
    element("div", { class: "key" }, ...[["forward", "made by the forward pass"], ["backward", "made by the gradient"], ["workspace", "workspace of one kernel"]].map(([c, t]) => element("span", {}, element("i", { class: c }), t))),
    arena ? element("div", { class: "scroll" }, arenaPicture(blocks, arena, live, peak, page)) : element("p", {}, Object.keys(state.dims).length && data.memory.blocks.length ? "At this size no scratch memory is needed." : "This function needs no scratch memory."),
    ...bufferTables(blocks));
  page.scrollTop = scroll;
  if (focused) page.querySelector(`[data-dim="${CSS.escape(focused)}"]`)?.focus();
}

const figure = (name, value, detail) => element("div", {}, element("dt", {}, name), element("dd", {}, value, " ", element("small", {}, detail)));

function arenaPicture(blocks, arena, live, peak, page) {
  const count = data.steps.length;
  const names = data.steps.map((s, k) => `${k + 1} ${data.kernels[s.kernel].name}`);
  const [left, above, gap, height] = [76, 90, 26, 400];
  const column = Math.max(15, Math.min(64, (page.clientWidth - left - 60) / Math.max(count, 1)));
  const below = Math.max(...names.map((n) => textWidth(n, "chip"))) + 20;
  const width = left + column * count + 10;
  const top = Math.max(arena, ...live, 1);
  const y = (n) => above + gap + height * (1 - n / arena);
  const small = (n) => above * (1 - n / top) + 16;
  const svg = shape("svg", { class: "arena", width, height: above + gap + height + below + 16, role: "group", "aria-label": "The arena over time" });
  const put = (tag, attributes, content) => { const e = shape(tag, attributes); if (content !== undefined) e.textContent = content; svg.append(e); return e; };
  if (state.selected?.startsWith("k:")) put("rect", { class: "column", x: left + column * +state.selected.slice(2), y: 16, width: column, height: above + gap + height - 16 });
  for (let n = 0, step = niceStep(arena, 5); n <= arena; n += step) {
    put("line", { class: "grid", x1: left, x2: width, y1: y(n), y2: y(n) });
    put("text", { x: left - 8, y: y(n) + 4, "text-anchor": "end" }, bytes(n));
  }
  let area = `M${left},${small(0)}`;
  live.forEach((n, k) => { area += ` V${small(n)} H${left + column * (k + 1)}`; });
  put("path", { class: "live", d: `${area} V${small(0)} Z` });
  put("text", { x: left - 8, y: small(live[peak]) + 4, "text-anchor": "end", class: "peak" }, bytes(live[peak]));
  put("text", { x: left - 8, y: small(0) + 1, "text-anchor": "end" }, "alive");
  const middle = left + column * (peak + 0.5);
  for (const b of [...blocks].sort((a, c) => c.bytes - a.bytes)) svg.append(blockShape(b, left, column, y, height / arena));
  put("line", { class: "peak", x1: middle, x2: middle, y1: small(live[peak]), y2: above + gap + height });
  names.forEach((name, k) => {
    const x = left + column * (k + 0.5) + 4;
    const label = put("text", { class: `step${k === peak ? " peak" : ""}`, transform: `translate(${x},${above + gap + height + 10}) rotate(90) translate(0,6)` }, name);
    label.setAttribute("transform", `translate(${x - 4},${above + gap + height + 10}) rotate(90) translate(0,4)`);
    label.addEventListener("click", () => select(`k:${k}`));
  });
  return svg;
}

function blockShape(b, left, column, y, scale) {
  const [first, last] = b.lives;
  const [w, h] = [column * (last - first + 1), Math.max(1, b.bytes * scale)];
  const g = shape("g", {
    class: `block ${b.kind === "workspace" ? "workspace" : isBackward(data.steps[first].locs[0]) ? "backward" : "forward"}`,
    transform: `translate(${left + column * first},${y(b.at + b.bytes)})`, tabindex: 0, role: "button",
    "aria-label": `${b.name}, ${b.type}, ${bytes(b.bytes)} at ${grouped(b.at)}, kernels ${first + 1} to ${last + 1}`,
  });
  const title = shape("title");
  title.textContent = `${b.name}: ${b.type}\n${grouped(b.bytes)} bytes at ${grouped(b.at)}\nkernels ${first + 1} to ${last + 1}`;
  g.append(shape("rect", { width: w, height: h }), title);
  const label = [`${b.name} ${bytes(b.bytes)}`, b.name].find((t) => textWidth(t, "chip") + 10 < w);
  if (label && h > 15) {
    const t = shape("text", { x: 5, y: Math.min(h / 2 + 4, 15) });
    t.textContent = label;
    g.append(t);
  }
  const open = () => select(`k:${first}`);
  g.addEventListener("click", open);
  g.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); open(); } });
  return g;
}

function bufferTables(blocks) {
  const kernels = (b) => `${b.lives[0] + 1}–${b.lives[1] + 1}`;
  const named = Object.keys(state.dims).length > 0;
  const rows = [...blocks].sort((a, b) => b.bytes - a.bytes).map((b) => [b.name, b.type, b.kind, kernels(b), grouped(b.bytes), named ? b.size.text : "", named ? b.offset.text : grouped(b.at)]);
  const others = [...data.memory.external, ...data.memory.constants].map((b) => [b.name, b.type || "", b.kind, grouped(sizeOf(b))]);
  return [
    element("h3", {}, "Buffers in the arena"),
    plainTable([["Name", "mono keep"], ["Type", "mono keep"], ["Kind"], ["Kernels", "keep"], ["Bytes", "number"], ["Size", "mono"], ["Offset", "mono"]], rows),
    element("h3", {}, "The caller's memory"),
    plainTable([["Name", "mono keep"], ["Type", "mono keep"], ["Kind"], ["Bytes", "number"]], others),
  ];
}
