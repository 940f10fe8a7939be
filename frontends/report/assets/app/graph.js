// The drawing: cards and edges, panning and zooming, the small map, and moving with the keys.

const drawing = d3.select("#drawing");
const scene = drawing.append("g");
const line = d3.line((p) => p.x, (p) => p.y).curve(d3.curveBumpY);
let placed = { boxes: [], paths: [], width: 0, height: 0 };
let byKey = new Map();

const defs = drawing.insert("defs", "g");
for (const kind of ["", "near"]) {
  defs.append("marker").attr("id", `arrow${kind}`).attr("viewBox", "0 0 8 8").attr("refX", 7).attr("refY", 4)
    .attr("markerWidth", 7).attr("markerHeight", 7).attr("markerUnits", "userSpaceOnUse").attr("orient", "auto")
    .append("path").attr("class", `arrow ${kind}`).attr("d", "M0,0.6 L8,4 L0,7.4 z");
}

const zoom = d3.zoom().scaleExtent([0.08, 2.5])
  .filter((e) => !e.button && (e.type !== "wheel" || e.ctrlKey || e.metaKey))
  .on("zoom", (e) => { scene.attr("transform", e.transform); drawWindow(); });
drawing.call(zoom).on("dblclick.zoom", null);
drawing.node().addEventListener("wheel", (e) => {
  if (e.ctrlKey || e.metaKey) return;
  e.preventDefault();
  const unit = e.deltaMode ? 24 : 1;
  const k = d3.zoomTransform(drawing.node()).k;
  const [dx, dy] = e.shiftKey ? [e.deltaY, 0] : [e.deltaX, e.deltaY];
  drawing.call(zoom.translateBy, (-dx * unit) / k, (-dy * unit) / k);
}, { passive: false });

const viewport = () => drawing.node().getBoundingClientRect();

// --- drawing -------------------------------------------------------------------------------------

function drawGraph(anchor = null) {
  const before = anchor && byKey.get(anchor);
  const old = before && [before.x, before.y];
  placed = arrange(state);
  byKey = new Map(placed.boxes.map((b) => [b.key, b]));
  scene.selectAll("*").remove();
  const open = scene.append("g"), edges = scene.append("g"), cards = scene.append("g");
  for (const b of placed.boxes) (b.open ? open : cards).node().append(cardShape(b));
  for (const p of placed.paths) {
    p.shape = shape("path", { class: `edge${p.gone ? " gone" : ""}${p.far ? " far" : ""}`, d: line(p.points), "marker-end": p.plain ? null : "url(#arrow)" });
    edges.node().append(p.shape);
  }
  for (const b of placed.boxes.filter((x) => x.open)) cards.node().append(headerShape(b));
  drawMap();
  const now = anchor && byKey.get(anchor);
  if (old && now) {
    drawing.call(zoom.translateBy, old[0] - now.x, old[1] - now.y);
  }
  markSelection();
}

function describe(b) {
  const changes = b.card.badges.map((m) => m.text).join(", ");
  return [b.card.title, ...b.card.lines, changes, b.group ? (b.open ? "open group" : "closed group") : ""].filter(Boolean).join(", ");
}

function cardShape(b) {
  const c = b.card;
  const marks = c.mark ? ` ${c.mark}` : c.badges.length === 1 && !b.open ? ` ${c.badges[0].mark === "gone" ? "" : c.badges[0].mark}` : "";
  const g = shape("g", {
    class: `node ${b.group ? "group" : `op ${c.kind}`}${b.open ? " expanded" : ""}${marks}`, transform: `translate(${b.x},${b.y})`,
    tabindex: -1, role: "button", "aria-label": describe(b), "data-key": b.key, "aria-expanded": b.group ? String(b.open) : null,
  });
  g.append(shape("rect", { class: "card", width: b.w, height: b.h, rx: b.open ? 10 : c.kind === "input" ? 14 : 6 }));
  if (!b.open) {
    if (c.kind !== "input") g.append(shape("rect", { class: `stripe ${c.kind}`, x: 0.5, y: 6, width: 3.5, height: b.h - 12, rx: 1.75 }));
    texts(g, b);
  }
  g.addEventListener("click", (e) => { e.stopPropagation(); select(b.key); g.focus({ preventScroll: true }); });
  if (b.group) g.addEventListener("dblclick", (e) => { e.stopPropagation(); toggle(b.key); });
  return g;
}

// The title of an open group lies over the edges that enter through its upper border.
function headerShape(b) {
  const g = shape("g", { class: "node group expanded", transform: `translate(${b.x},${b.y})`, "aria-hidden": "true" });
  g.append(shape("rect", { class: "mask", x: 6, y: 5, width: b.card.w + 2, height: b.card.h - 6, rx: 5, fill: "var(--faint)" }));
  texts(g, b);
  g.addEventListener("click", (e) => { e.stopPropagation(); select(b.key); });
  g.addEventListener("dblclick", (e) => { e.stopPropagation(); toggle(b.key); });
  return g;
}

function texts(g, b) {
  const c = b.card;
  let y = 20;
  const title = shape("text", { class: "title", x: PAD, y });
  title.textContent = c.title;
  g.append(title);
  for (const text of c.lines) {
    const t = shape("text", { x: PAD, y: (y += ROW) });
    t.textContent = text;
    g.append(t);
  }
  if (c.badges.length) {
    let x = PAD;
    y += ROW;
    for (const badge of c.badges) {
      const t = shape("text", { class: `mark ${badge.mark}`, x, y });
      t.textContent = badge.text;
      x += badge.w + 8;
      g.append(t);
    }
  }
  for (const chip of c.chips) {
    const t = shape("text", { x: 6, y: 13 });
    t.textContent = chip.text;
    const e = shape("g", { class: `chip ${chip.kind}`, transform: `translate(${chip.x},${chip.y})` },
      shape("rect", { width: chip.w, height: CHIP, rx: 4 }), t);
    if (chip.kind === "far") {
      const title = shape("title");
      title.textContent = "Reads what this made, far above";
      e.append(title);
      e.addEventListener("click", (event) => { event.stopPropagation(); select(byKey.has(`op:${chip.id}`) ? `op:${chip.id}` : chip.source); });
    }
    if (chip.kind === "read") e.addEventListener("click", (event) => { event.stopPropagation(); select(`op:${chip.id}`); });
    g.append(e);
  }
  if (b.group) g.append(toggleShape(b));
}

function toggleShape(b) {
  const x = b.w - 26;
  const g = shape("g", { class: "toggle", transform: `translate(${x},6)` },
    shape("rect", { width: 20, height: 20, rx: 4 }),
    shape("path", { class: "fold", d: b.open ? "M5,10 H15" : "M5,10 H15 M10,5 V15" }));
  const name = shape("title");
  name.textContent = b.open ? "Close the group" : "Open the group";
  g.append(name);
  g.addEventListener("click", (e) => { e.stopPropagation(); toggle(b.key); });
  g.addEventListener("dblclick", (e) => e.stopPropagation());
  return g;
}

// --- selection -----------------------------------------------------------------------------------

// The box that shows a selection: its own, or the closed group that it is in.
function boxOf(key) {
  if (!key) return null;
  if (byKey.has(key)) return byKey.get(key);
  const [kind, id] = [key.split(":")[0], +key.split(":")[1]];
  if (kind === "op") return byKey.get(groupOf(id, state.grouping)) || null;
  return placed.boxes.find((b) => b.members.some((m) => groupOf(m.id, kind === "k" ? "kernel" : "line") === key)) || null;
}

function related(key) {
  const [kind, id] = [key.split(":")[0], +key.split(":")[1]];
  if (kind === "op") return new Set([id]);
  return new Set(data.ops.flatMap((_, k) => (groupOf(k, kind === "k" ? "kernel" : "line") === key ? [k] : [])));
}

function markSelection() {
  const box = boxOf(state.selected);
  const ids = state.selected ? related(state.selected) : new Set();
  scene.selectAll("g.node[data-key]").each(function () {
    const b = byKey.get(this.dataset.key);
    const shared = !b.open && b.members.some((m) => ids.has(m.id) || m.operands.some((o) => ids.has(o) && isChip(o)));
    this.classList.toggle("selected", b === box && (b.key === state.selected || b.group));
    this.classList.toggle("related", b !== box && shared);
    this.setAttribute("tabindex", b === box ? 0 : -1);
  });
  for (const p of placed.paths) {
    const near = p.ids.some((id) => ids.has(id)) && !(box && box.group && box.open && p.from.includes(":") && byKey.get(p.from)?.parent === box.key);
    p.shape.classList.toggle("near", near);
    if (!p.plain) p.shape.setAttribute("marker-end", near ? "url(#arrownear)" : "url(#arrow)");
    if (near) p.shape.parentNode.append(p.shape);
  }
  d3.select("#map").selectAll("rect[data-key]").classed("selected", function () { return box !== null && this.dataset.key === box.key; });
}

function toggle(key, open = !state.open.has(key)) {
  if (open) state.open.add(key); else state.open.delete(key);
  drawGraph(key);
  focusBox(key);
}

function focusBox(key) {
  const found = scene.selectAll("g.node[data-key]").filter(function () { return this.dataset.key === key; }).node();
  if (found) found.focus({ preventScroll: true });
}

// --- the window ----------------------------------------------------------------------------------

function fit() {
  const { width, height } = viewport();
  if (!placed.width || !width) return;
  const k = Math.min(1.1, (width - 60) / placed.width, (height - 50) / placed.height);
  drawing.call(zoom.transform, d3.zoomIdentity.translate((width - placed.width * k) / 2, 25 + Math.max(0, (height - 50 - placed.height * k) / 2)).scale(k));
}

// At first: readable, from the top.
function start() {
  const { width, height } = viewport();
  const whole = Math.min((width - 60) / placed.width, (height - 50) / placed.height);
  if (whole >= 0.7) return fit();
  const k = Math.min(1, Math.max(0.85, (width - 60) / placed.width));
  const first = placed.boxes.filter((b) => !b.parent && b.y < (height - 25) / k);
  const middle = first.map((b) => b.x + b.w / 2).sort((a, b) => a - b)[first.length >> 1] || 0;
  drawing.call(zoom.transform, d3.zoomIdentity.translate(width / 2 - middle * k, 25).scale(k));
}

function reveal(key) {
  const b = boxOf(key);
  const { width, height } = viewport();
  if (!b || !width) return;
  const t = d3.zoomTransform(drawing.node());
  const [x, y] = t.apply([b.x, b.y]);
  const [w, h] = [Math.min(b.w * t.k, width - 80), Math.min(b.h * t.k, height - 60)];
  const dx = x < 30 ? 30 - x : x + w > width - 30 ? width - 30 - x - w : 0;
  const dy = y < 25 ? 25 - y : y + h > height - 25 ? height - 25 - y - h : 0;
  if (dx || dy) drawing.call(zoom.translateBy, dx / t.k, dy / t.k);
}

// --- the small map -------------------------------------------------------------------------------

let mapScale = 1;

function drawMap() {
  const map = d3.select("#map");
  mapScale = Math.min(0.12, 150 / Math.max(placed.width, 1), 190 / Math.max(placed.height, 1));
  map.style("display", placed.boxes.length > 8 ? null : "none");
  map.attr("width", Math.max(24, placed.width * mapScale + 8)).attr("height", placed.height * mapScale + 8);
  map.selectAll("*").remove();
  const g = map.append("g").attr("transform", `translate(4,4) scale(${mapScale})`);
  for (const b of placed.boxes) g.append("rect").attr("data-key", b.key).attr("class", b.open ? "expanded" : "").attr("x", b.x).attr("y", b.y).attr("width", b.w).attr("height", b.h);
  g.append("rect").attr("class", "view").attr("vector-effect", "non-scaling-stroke");
  drawWindow();
}

function drawWindow() {
  const t = d3.zoomTransform(drawing.node());
  const { width, height } = viewport();
  const [x, y] = t.invert([0, 0]);
  d3.select("#map .view").attr("x", x).attr("y", y).attr("width", width / t.k).attr("height", height / t.k);
}

d3.select("#map").call(d3.drag().on("start drag", (e) => drawing.call(zoom.translateTo, (e.x - 4) / mapScale, (e.y - 4) / mapScale)));

// --- keys ----------------------------------------------------------------------------------------

const center = (b) => [b.x + b.w / 2, b.y + b.h / 2];

function neighbour(from, key) {
  const [x, y] = center(from);
  if (from.open && key === "ArrowDown") return placed.boxes.filter((b) => b.parent === from.key).sort((a, b) => a.y - b.y)[0];
  const candidates = placed.boxes.filter((b) => b !== from && !b.open);
  const nearest = (list, cost) => list.map((b) => [cost(...center(b)), b]).filter(([c]) => c < Infinity).sort((a, b) => a[0] - b[0])[0]?.[1];
  if (key === "ArrowDown" || key === "ArrowUp") {
    const down = key === "ArrowDown";
    const ids = new Set(from.members.map((m) => m.id));
    const linked = candidates.filter((b) => (down
      ? b.members.some((m) => m.operands.some((o) => ids.has(o)))
      : from.members.some((m) => m.operands.some((o) => b.members.some((s) => s.id === o)))));
    const found = nearest(linked, (cx, cy) => Math.abs(cy - y) * 2 + Math.abs(cx - x));
    return found || nearest(candidates, (cx, cy) => ((cy - y) * (down ? 1 : -1) > 4 ? Math.abs(cy - y) + 3 * Math.abs(cx - x) : Infinity));
  }
  const right = key === "ArrowRight" ? 1 : -1;
  return nearest(candidates, (cx, cy) => ((cx - x) * right > 4 ? Math.abs(cx - x) + 3 * Math.abs(cy - y) : Infinity));
}

drawing.node().addEventListener("keydown", (e) => {
  const box = boxOf(state.selected);
  if (e.key.startsWith("Arrow")) {
    e.preventDefault();
    const next = box ? neighbour(box, e.key) : placed.boxes.filter((b) => !b.open).sort((a, b) => a.y - b.y)[0];
    if (next) { select(next.key); focusBox(next.key); }
  } else if ((e.key === "Enter" || e.key === " ") && box) {
    e.preventDefault();
    if (box.group) toggle(box.key);
    else $("panel").focus();
  } else if (e.key === "Escape") {
    e.preventDefault();
    const parent = box?.parent || null;
    select(parent);
    if (parent) focusBox(parent); else drawing.node().focus({ preventScroll: true });
  }
});
drawing.on("click", () => select(null));
$("out").addEventListener("click", () => drawing.call(zoom.scaleBy, 1 / 1.3));
$("in").addEventListener("click", () => drawing.call(zoom.scaleBy, 1.3));
$("fit").addEventListener("click", fit);
