// From a stage to placed boxes and edges: groups are laid out inside first, then as boxes among the others.

const MEASURE = document.createElement("canvas").getContext("2d");
const FONTS = (() => {
  const style = getComputedStyle(document.documentElement);
  const [mono, sans] = [style.getPropertyValue("--mono"), style.getPropertyValue("--sans")];
  return { title: `600 13px ${sans}`, name: `600 12.5px ${mono}`, line: `11.5px ${mono}`, chip: `11px ${mono}`, mark: `600 11px ${sans}` };
})();
const widths = new Map();

function textWidth(text, font) {
  const key = font + text;
  if (!widths.has(key)) {
    MEASURE.font = FONTS[font];
    widths.set(key, Math.ceil(MEASURE.measureText(text).width));
  }
  return widths.get(key);
}

const PAD = 12, ROW = 16, CHIP = 18, HEADER = 46;

function groupOf(id, grouping) {
  const op = data.ops[id];
  if (grouping === "kernel") return op.step === null ? null : `k:${op.step}`;
  if (grouping === "line") return op.loc === null ? null : `l:${op.loc}`;
  return null;
}

function groupTitle(key) {
  const k = +key.slice(2);
  return key[0] === "k" ? data.kernels[data.steps[k].kernel].name : lineText(k);
}

const nameOf = (key) => (key.startsWith("op:") ? data.ops[+key.slice(3)].label || data.ops[+key.slice(3)].op : groupTitle(key));

// The ops of a stage and those that left with it, gathered into items: single ops and groups.
function gather(view) {
  const stage = stages[view.stage];
  const before = view.stage ? stages[view.stage - 1] : null;
  const nodes = [...stage.nodes.values()].map((n) => ({ ...n, mark: stage.marks.get(n.id) || "" }));
  for (const id of stage.gone) nodes.push({ ...before.nodes.get(id), mark: "gone" });
  const items = new Map();
  const owner = new Map();
  for (const node of nodes) {
    if (isChip(node.id)) continue;
    const group = data.ops[node.id].kind === "input" ? null : groupOf(node.id, view.grouping);
    const key = group || `op:${node.id}`;
    if (!items.has(key)) items.set(key, { key, group: group !== null, open: group !== null && view.open.has(key), members: [] });
    items.get(key).members.push(node);
    owner.set(node.id, key);
  }
  return { stage, items, owner };
}

function chipsOf(members, stage, distant) {
  const reads = new Map();
  const writes = [];
  const far = new Map();
  for (const { id, operands } of members) {
    for (const o of operands) if (typeof o === "number" && isChip(o)) reads.set(o, chipText(o));
    for (const o of operands) if (distant?.has(o)) far.set(distant.get(o), o);
    for (const text of stage.writes.get(id) || []) writes.push({ text: text.startsWith("return") ? text : `→ ${text}`, kind: "write", id });
  }
  return [
    ...[...far].map(([source, id]) => ({ text: `↑ ${nameOf(source)}`, kind: "far", id, source })),
    ...[...reads].map(([id, text]) => ({ text, kind: "read", id })), ...writes,
  ];
}

// What a card says, and its size.
function card(item, stage) {
  const distant = item.distant;
  const lines = [];
  let title, kind, mark = "", marks = [];
  if (item.group) {
    title = groupTitle(item.key);
    const first = item.members[item.members.length - 1];
    const count = plural(item.members.filter((m) => m.mark !== "gone").length, "op");
    lines.push(item.key[0] === "k" ? [lineText(data.steps[+item.key.slice(2)].locs[0]), count].filter(Boolean).join(" · ") : count);
    if (!item.open) lines.push(data.ops[first.id].type);
    kind = ["contract", "reduce", "opaque", "region", "map"].find((k) => item.members.some((m) => data.ops[m.id].kind === k)) || "move";
    marks = ["new", "rewired", "gone"].map((m) => [m, item.members.filter((x) => x.mark === m).length]).filter(([, n]) => n);
  } else {
    const [node] = item.members;
    const op = data.ops[node.id];
    const literals = node.operands.filter((o) => typeof o === "string");
    title = op.label && op.kind === "input" ? op.label : [op.op, ...literals].join(" ");
    lines.push(op.type);
    [kind, mark] = [op.kind, node.mark];
    if (mark) marks = [[mark, 0]];
  }
  const markText = ([m, n]) => (n ? `${n} ` : "") + (m === "gone" ? "removed" : m);
  const badges = marks.map((m) => ({ mark: m[0], text: markText(m), w: textWidth(markText(m), "mark") }));
  const badgeWidth = badges.reduce((sum, b) => sum + b.w + 8, 0);
  const titleWidth = textWidth(title, item.group ? "name" : "title") + (item.group ? 30 : 0);
  let w = Math.max(titleWidth, badgeWidth, ...lines.map((l) => textWidth(l, "line")));
  const chips = item.open ? [] : chipsOf(item.members, stage, distant).map((c) => ({ ...c, w: textWidth(c.text, "chip") + 12 }));
  w = Math.max(w, Math.min(230, chips.reduce((sum, c) => sum + c.w + 4, -4)), ...chips.map((c) => c.w));
  let [x, y] = [0, 24 + ROW * lines.length + (badges.length ? ROW : 0)];
  const top = y;
  for (const chip of chips) {
    if (x && x + chip.w > w) { x = 0; y += CHIP + 3; }
    [chip.x, chip.y] = [PAD + x, y];
    x += chip.w + 4;
  }
  const h = chips.length ? y + CHIP + 8 : top + 5;
  return { title, lines, kind, mark, badges, chips, w: w + 2 * PAD, h };
}

function dagreLayout(boxes, edges, options) {
  const g = new dagre.graphlib.Graph({ multigraph: true });
  g.setGraph({ rankdir: "TB", nodesep: 20, ranksep: 30, edgesep: 10, marginx: 0, marginy: 0, ...options });
  g.setDefaultEdgeLabel(() => ({}));
  for (const b of boxes) g.setNode(b.key, { width: b.w, height: b.h });
  edges.forEach((e, k) => g.setEdge(e.from, e.to, { weight: e.weight ?? 1, edge: e }, String(k)));
  dagre.layout(g);
  const bands = new Map();  // the rows: from the top of the highest box to its bottom
  for (const b of boxes) {
    const { x, y } = g.node(b.key);
    [b.x, b.y] = [x - b.w / 2, y - b.h / 2];
    const row = Math.round(y);
    bands.set(row, { top: Math.min(b.y, bands.get(row)?.top ?? b.y), bottom: Math.max(b.y + b.h, bands.get(row)?.bottom ?? b.y + b.h) });
    b.row = row;
  }
  for (const b of boxes) b.band = { ...bands.get(b.row) };
  const rows = [...bands.values()];
  for (const e of g.edges()) {
    const { edge, points } = g.edge(e);
    // past the boxes of a row an edge runs straight
    edge.through = points.slice(1, -1).flatMap((p) => {
      const band = rows.find((r) => r.top <= p.y && p.y <= r.bottom);
      return band ? [[p.x, band.top, band.bottom]] : [];
    });
  }
  const { width, height } = g.graph();
  return { width: Math.max(0, width || 0), height: Math.max(0, height || 0) };
}

// The inside of an open group: ports on its upper border for what it reads, on its lower border for what it gives.
function inside(item, owner, stage) {
  const boxes = item.members.map((m) => {
    const single = { key: `op:${m.id}`, group: false, open: false, members: [m], parent: item.key, distant: item.distant };
    return { ...single, card: card(single, stage) };
  });
  for (const b of boxes) [b.w, b.h] = [b.card.w, b.card.h];
  const own = new Set(item.members.map((m) => m.id));
  const ports = new Map();
  const port = (key, id) => ports.set(key, { key, id, w: 8, h: 1 }).get(key);
  const edges = [];
  for (const m of item.members) {
    for (const o of new Set(m.operands)) {
      if (!owner.has(o) || item.distant.has(o)) continue;
      const from = own.has(o) ? `op:${o}` : `in:${o}`;
      if (!own.has(o) && !ports.has(from)) { port(from, o); edges.push({ from: "top", to: from, weight: 9, hidden: true }); }
      edges.push({ from, to: `op:${m.id}`, ids: [o, m.id], gone: m.mark === "gone" });
    }
    if (m.given) {
      port(`out:${m.id}`, m.id);
      edges.push({ from: `op:${m.id}`, to: `out:${m.id}`, ids: [m.id, null] }, { from: `out:${m.id}`, to: "bottom", weight: 9, hidden: true });
    }
  }
  const ends = ports.size ? [{ key: "top", w: 1, h: 1 }, { key: "bottom", w: 1, h: 1 }] : [];
  const all = [...boxes, ...ports.values(), ...ends];
  const used = all.filter((b) => !["top", "bottom"].includes(b.key) || edges.some((e) => e.from === b.key || e.to === b.key));
  const size = dagreLayout(used, edges, { ranksep: 24 });
  const cut = used.some((b) => b.key === "top") ? 24 : 0;
  const end = used.some((b) => b.key === "bottom") ? 24 : 0;
  const head = card(item, stage);
  const w = Math.max(size.width + 2 * PAD, head.w + 8);
  const left = (w - size.width) / 2;
  const down = HEADER + (head.badges.length ? ROW : 0) - cut;
  const h = size.height + down + 14 - end;
  return { item: { ...item, card: head }, boxes, ports, edges: edges.filter((e) => !e.hidden), w, h, left, down };
}

// Which items read which, and how far apart: an item's rank is its row if all stand as low as they can.
function ranks(items, owner) {
  const keys = [...items.keys()];
  const number = new Map(keys.map((k, i) => [k, i]));
  const follow = keys.map(() => new Set());
  for (const item of items.values()) {
    for (const m of item.members) for (const o of m.operands) {
      if (owner.has(o) && owner.get(o) !== item.key) follow[number.get(owner.get(o))].add(number.get(item.key));
    }
  }
  const waiting = keys.map(() => 0);
  for (const next of follow) for (const v of next) waiting[v] += 1;
  const left = new Set(keys.keys());
  const order = [];
  while (left.size) {  // a cycle of source lines is entered at its first
    const ready = [...left].find((v) => waiting[v] <= 0) ?? [...left][0];
    left.delete(ready);
    order.push(ready);
    for (const v of follow[ready]) waiting[v] -= 1;
  }
  const place = new Map(order.map((v, i) => [v, i]));
  const rank = keys.map(() => 0);
  for (const u of order) for (const v of follow[u]) if (place.get(v) > place.get(u)) rank[v] = Math.max(rank[v], rank[u] + 1);
  for (const u of [...order].reverse()) {  // what is needed late can wait
    const next = [...follow[u]].filter((v) => place.get(v) > place.get(u));
    if (next.length) rank[u] = Math.min(...next.map((v) => rank[v] - 1));
  }
  return { number, follow, order, place, rank };
}

// Reads from far above, where another way leads along or to all that follows: as lines they would cross the whole drawing, so they are
// written on the card that reads, and drawn when one of their ends is selected.
const FAR = 4;

function distances(items, owner) {
  const { number, follow, order, place, rank } = ranks(items, owner);
  const reach = order.map(() => null);
  for (const u of [...order].reverse()) {
    reach[u] = new Uint8Array(order.length);
    for (const v of follow[u]) {
      if (place.get(v) < place.get(u)) continue;
      reach[u][v] = 1;
      reach[v].forEach((r, k) => { if (r) reach[u][k] = 1; });
    }
  }
  const otherWay = (u, v, target) => [...follow[u]].some((w) => w !== v && place.get(w) > place.get(u) && (w === target || reach[w][target]));
  return (from, to) => {
    const [u, v] = [number.get(from), number.get(to)];
    if (rank[v] - rank[u] <= FAR) return false;
    return otherWay(u, v, v) || (follow[v].size > 0 && [...follow[v]].every((w) => otherWay(u, v, w)));
  };
}

// The last arrangements are kept, so that going back and forth costs nothing.
const arranged = new Map();

function arrange(view) {
  const key = JSON.stringify([view.stage, view.grouping, [...view.open].filter((k) => k[0] === view.grouping[0]).sort()]);
  if (!arranged.has(key)) {
    if (arranged.size >= 32) arranged.delete(arranged.keys().next().value);
    arranged.set(key, arrangeAnew(view));
  }
  return arranged.get(key);
}

function arrangeAnew(view) {
  const { stage, items, owner } = gather(view);
  const outer = new Map();
  const isFar = distances(items, owner);
  const far = [];
  for (const item of items.values()) {
    item.distant = new Map();
    for (const m of item.members) {
      for (const o of new Set(m.operands)) {
        if (!owner.has(o) || owner.get(o) === item.key) continue;
        const source = items.get(owner.get(o));
        if (isFar(source.key, item.key)) {
          item.distant.set(o, source.key);
          far.push({ from: source.key, to: item.key, ids: [o, m.id], far: true });
          continue;
        }
        const exact = source.open || item.open;
        const name = exact ? `${source.key}/${o}/${item.key}` : `${source.key}/${item.key}`;
        const found = outer.get(name) || { from: source.key, to: item.key, value: o, ids: [], gone: true };
        found.ids.push(o, m.id);
        found.gone = found.gone && m.mark === "gone";
        outer.set(name, found);
        source.members.find((x) => x.id === o).given = true;
      }
    }
  }
  const boxes = [...items.values()].map((item) => {
    if (item.open) { const inner = inside(item, owner, stage); return { ...inner.item, inner, w: inner.w, h: inner.h }; }
    const c = card(item, stage);
    return { ...item, card: c, w: c.w, h: c.h };
  });
  const edges = [...outer.values()];
  // what follows soon stays in line; what is read much later makes room
  const place = new Map(boxes.map((b, k) => [b.key, k]));
  for (const e of edges) e.weight = Math.abs(place.get(e.to) - place.get(e.from)) <= 3 ? 6 : 1;
  const size = dagreLayout(boxes, edges, { ranksep: 36, nodesep: 26 });
  return finish(boxes, edges, far, size);
}

// The points of an edge: it leaves through the lower border, passes each row straight, and enters through the
// upper border. One that goes back, in a cycle of source lines, runs the other way.
function route(e, from, to, dx = 0, dy = 0) {
  const down = to.band.top >= from.band.top;
  const within = (b, x) => (b.w < 30 ? b.x + b.w / 2 : Math.max(b.x + 14, Math.min(b.x + b.w - 14, (x + b.x + b.w / 2) / 2)));
  const middle = e.through.flatMap(([x, top, bottom]) => (down ? [top, bottom] : [bottom, top]).map((y) => ({ x: x + dx, y: y + dy })));
  const start = within(from, middle.length ? middle[0].x : to.x + to.w / 2);
  const end = within(to, middle.length ? middle[middle.length - 1].x : from.x + from.w / 2);
  const ends = down ? [from.y + from.h, from.band.bottom, to.band.top, to.y] : [from.y, from.band.top, to.band.bottom, to.y + to.h];
  const points = [{ x: start, y: ends[0] }, { x: start, y: ends[1] }, ...middle, { x: end, y: ends[2] }, { x: end, y: ends[3] }];
  return points.filter((p, k) => !k || Math.abs(p.y - points[k - 1].y) > 0.5 || Math.abs(p.x - points[k - 1].x) > 0.5);  // arrows need a direction
}

// Absolute places: of the boxes inside groups too, and edges that meet their ports.
function finish(boxes, edges, far, size) {
  const by = new Map(boxes.map((b) => [b.key, b]));
  const drawn = [];
  const paths = [];
  for (const b of boxes) {
    drawn.push(b);
    if (!b.inner) continue;
    const { left, down, ports } = b.inner;
    const shift = (band, y) => ({ top: band.top + y, bottom: band.bottom + y });
    const ends = new Map();
    for (const p of ports.values()) {
      p.cx = b.x + left + p.x + p.w / 2;
      p.cy = p.key.startsWith("in:") ? b.y : b.y + b.h;
      ends.set(p.key, { x: p.cx, w: 0, y: p.cy, h: 0, band: { top: p.cy, bottom: p.cy } });
    }
    for (const child of b.inner.boxes) {
      child.x += b.x + left; child.y += b.y + down;
      child.band = shift(child.band, b.y + down);
      ends.set(child.key, child);
      drawn.push(child);
    }
    for (const e of b.inner.edges) paths.push({ ...e, points: route(e, ends.get(e.from), ends.get(e.to), b.x + left, b.y + down), plain: ports.has(e.to) });
  }
  for (const e of edges) {
    const [from, to] = [by.get(e.from), by.get(e.to)];
    const out = from.inner?.ports.get(`out:${e.value}`);
    const into = to.inner?.ports.get(`in:${e.value}`);
    const points = route(e, out ? { ...from, x: out.cx, w: 0 } : from, into ? { ...to, x: into.cx, w: 0 } : to);
    paths.push({ ...e, points, plain: Boolean(into) });
  }
  const all = new Map(drawn.map((b) => [b.key, b]));
  for (const e of far) {
    const [from, to] = [all.get(`op:${e.ids[0]}`) || by.get(e.from), all.get(`op:${e.ids[1]}`) || by.get(e.to)];
    paths.push({ ...e, points: [{ x: from.x + from.w / 2, y: from.y + from.h }, { x: to.x + to.w / 2, y: to.y }] });
  }
  return { boxes: drawn, paths, width: size.width, height: size.height };
}
