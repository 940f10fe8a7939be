// The page: views, passes, search, theme, and what happens when something is selected.

const VIEWS = [["graph", "Graph"], ["memory", "Memory"], ["kernels", "Kernels"], ["profile", "Profile"]]
  .filter(([name]) => name === "graph" || (name === "profile" ? data.profile : data.memory));

function select(key) {
  state.selected = key;
  markSelection();
  showPanel();
  if (key && state.view === "graph") reveal(key);
  drawMemory();
  drawKernels();
}

// Select, and show it in the graph: an op inside a closed group opens it.
function go(key) {
  const [kind, id] = [key.split(":")[0], +key.split(":")[1]];
  if (kind === "op" && state.view === "graph") {
    if (!stages[state.stage].nodes.has(id) && !stages[state.stage].gone.includes(id)) setStage(presence[id][presence[id].length - 1]);
    const group = groupOf(id, state.grouping);
    if (group && byKey.has(group) && !byKey.get(group).open) { state.open.add(group); drawGraph(group); }
  }
  select(key);
}

// --- views ---------------------------------------------------------------------------------------

function setView(name, focus = false) {
  state.view = name;
  for (const [view] of [["graph"], ["memory"], ["kernels"], ["profile"]]) $(view).hidden = view !== name;
  $("views").replaceChildren(...VIEWS.map(([view, title], k) => element("button", {
    role: "tab", type: "button", "aria-selected": String(view === name), "aria-controls": view, tabindex: view === name ? 0 : -1,
    onclick: () => setView(view, true),
    onkeydown: (e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (step) { e.preventDefault(); setView(VIEWS[(k + step + VIEWS.length) % VIEWS.length][0], true); }
    },
  }, title)));
  if (focus) $("views").querySelector("[aria-selected=true]").focus();
  drawMemory();
  drawKernels();
  drawProfile();
  if (name === "graph") drawWindow();
}

// --- passes --------------------------------------------------------------------------------------

function counts(stage) {
  const marks = [...stage.marks.values()];
  return { new: marks.filter((m) => m === "new").length, rewired: marks.filter((m) => m === "rewired").length, gone: stage.gone.length };
}

function tickNote(stage, k) {
  if (!k) return [plural(stage.nodes.size, "op")];
  const c = counts(stage);
  const parts = [["new", "+"], ["gone", "−"], ["rewired", "~"]].filter(([m]) => c[m]).map(([m, sign]) => element("span", { class: m }, `${sign}${c[m]} `));
  if (!parts.length && k === stages.length - 1 && data.steps.length) parts.push(plural(data.steps.length, "call"));
  return parts.length ? parts : ["same"];
}

function drawTicks() {
  document.documentElement.style.setProperty("--count", stages.length);
  $("pass").max = stages.length - 1;
  $("ticks").replaceChildren(...stages.map((s, k) => element("li", {}, element("button", {
    type: "button", tabindex: -1, onclick: () => setStage(k), "aria-current": String(k === state.stage), title: s.why,
  }, s.name, element("small", {}, tickNote(s, k))))));
}

function drawChange() {
  const stage = stages[state.stage];
  const before = state.stage ? stages[state.stage - 1].nodes.size : stage.nodes.size;
  const c = counts(stage);
  const rewrites = stage.rules.reduce((sum, [, n]) => sum + n, 0);
  const said = state.stage === 0 ? [] : [
    `${before === stage.nodes.size ? plural(before, "op") : `${before} → ${plural(stage.nodes.size, "op")}`}`,
    ...[["new", "new"], ["gone", "removed"], ["rewired", "rewired"]].filter(([m]) => c[m]).map(([m, word]) => element("span", { class: m }, `${c[m]} ${word}`)),
    ...(state.stage === stages.length - 1 && data.steps.length ? [plural(data.steps.length, "kernel call")] : []),
    ...(stage.seconds === null ? [] : [duration(stage.seconds)]),
  ].flatMap((part, k) => (k ? [" · ", part] : [part]));
  const rules = rewrites ? element("details", {}, element("summary", {}, plural(rewrites, "rewrite")),
    element("table", {}, stage.rules.map(([rule, n]) => element("tr", {}, element("td", { class: "number" }, `${n}×\u2002`), element("td", { class: "mono" }, rule))))) : "";
  $("change").replaceChildren(element("b", {}, stage.name), stage.why ? `: ${stage.why}. ` : ". ", ...said, rewrites ? " · " : "", rules);
}

function setStage(k) {
  state.stage = Math.max(0, Math.min(stages.length - 1, k));
  const input = $("pass");
  input.value = state.stage;
  input.setAttribute("aria-valuetext", stages[state.stage].name);
  [...$("ticks").querySelectorAll("button")].forEach((b, i) => b.setAttribute("aria-current", String(i === state.stage)));
  drawChange();
  drawGraph(boxOf(state.selected)?.key || nearestToMiddle());
  showPanel(false);
}

// The box in the middle of the window, which stays where it is when the graph changes.
function nearestToMiddle() {
  const { width, height } = viewport();
  const [x, y] = d3.zoomTransform(drawing.node()).invert([width / 2, height / 2]);
  const distance = (b) => Math.hypot(center(b)[0] - x, center(b)[1] - y);
  return placed.boxes.reduce((best, b) => (best && distance(best) <= distance(b) ? best : b), null)?.key || null;
}

// --- groups --------------------------------------------------------------------------------------

const GROUPINGS = [["kernel", "Kernel"], ["line", "Source line"], ["none", "Nothing"]].filter(([g]) => g !== "kernel" || data.steps.length);

function setGrouping(name, focus = false) {
  state.grouping = name;
  $("groups").replaceChildren(...GROUPINGS.map(([grouping, title], k) => element("button", {
    type: "button", role: "radio", "aria-checked": String(grouping === name), tabindex: grouping === name ? 0 : -1,
    onclick: () => setGrouping(grouping, true),
    onkeydown: (e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (step) { e.preventDefault(); setGrouping(GROUPINGS[(k + step + GROUPINGS.length) % GROUPINGS.length][0], true); }
    },
  }, title)));
  if (focus) $("groups").querySelector("[aria-checked=true]").focus();
  $("fold").disabled = $("unfold").disabled = name === "none";
  drawGraph();
  start();
  if (state.selected) reveal(state.selected);
}

function openAll(open) {
  const prefix = state.grouping[0];
  const keys = state.grouping === "kernel" ? data.steps.map((_, k) => `k:${k}`) : data.locs.map((_, k) => `l:${k}`);
  for (const key of keys) if (open) state.open.add(key); else if (key[0] === prefix) state.open.delete(key);
  drawGraph(nearestToMiddle());
}

// --- search --------------------------------------------------------------------------------------

function matches(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const kernels = data.steps.flatMap((s, k) => (data.kernels[s.kernel].name.toLowerCase().includes(wanted) ? [`k:${k}`] : []));
  const places = data.locs.flatMap((_, k) => (lineText(k).toLowerCase().includes(wanted) ? [`l:${k}`] : []));
  const ops = [...stages[state.stage].nodes.values()].filter((n) => [data.ops[n.id].op, data.ops[n.id].label, n.name].some((t) => t.toLowerCase().includes(wanted)) ).map((n) => `op:${n.id}`);
  return [...kernels, ...ops, ...places];
}

const search = $("search");
search.addEventListener("input", () => search.setAttribute("aria-invalid", String(Boolean(search.value.trim()) && !matches(search.value).length)));
search.addEventListener("keydown", (e) => {
  if (e.key === "Escape") { search.value = ""; search.removeAttribute("aria-invalid"); $("drawing").focus({ preventScroll: true }); }
  if (e.key !== "Enter") return;
  const found = matches(search.value);
  if (!found.length) return;
  go(found[(found.indexOf(state.selected) + (e.shiftKey ? found.length - 1 : 1)) % found.length]);
});

// --- theme ---------------------------------------------------------------------------------------

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
let theme = null;
try { theme = localStorage.getItem("graphwright-theme"); } catch { theme = null; }

function showTheme() {
  const dark = theme ? theme === "dark" : darkSystem.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
}

$("theme").addEventListener("click", () => {
  theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("graphwright-theme", theme); } catch { /* not kept: the browser allows no storage for files */ }
  showTheme();
});
darkSystem.addEventListener("change", showTheme);

// --- start ---------------------------------------------------------------------------------------

document.addEventListener("keydown", (e) => {
  if (e.target.matches("input[type=search], input[type=number]") || e.altKey || e.metaKey || e.ctrlKey || $("about").open) return;
  const keys = {
    "/": () => { search.focus(); search.select(); }, "[": () => setStage(state.stage - 1), "]": () => setStage(state.stage + 1), "?": () => $("about").showModal(),
  };
  if (state.view === "graph") Object.assign(keys, { f: fit, "+": () => $("in").click(), "=": () => $("in").click(), "-": () => $("out").click() });
  const view = VIEWS[+e.key - 1];
  const act = keys[e.key] || (view && (() => setView(view[0], true)));
  if (act) { e.preventDefault(); act(); }
});

$("help").addEventListener("click", () => $("about").showModal());
$("pass").addEventListener("input", (e) => setStage(+e.target.value));
$("fold").addEventListener("click", () => openAll(false));
$("unfold").addEventListener("click", () => openAll(true));
$("legend").replaceChildren(...[["contract", "contraction"], ["reduce", "reduction"], ["map", "elementwise"], ["move", "movement"], ["opaque", "other"]]
  .filter(([k]) => data.ops.some((op) => op.kind === k)).map(([k, text]) => element("li", {}, element("i", { class: k }), text)));
$("name").textContent = "Graphwright";
$("signature").textContent = data.signature;
$("producer").textContent = `Written by ${data.producer} for ${data.target}.`;

// What an address asks for (#view=memory&select=k:3&stage=1&open=k:3&group=line): links into a report.
function openAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (GROUPINGS.some(([g]) => g === asked.get("group"))) state.grouping = asked.get("group");
  if (asked.get("theme")) theme = asked.get("theme") === "dark" ? "dark" : "light";
  for (const key of (asked.get("open") || "").split(",").filter(Boolean)) state.open.add(key);
  const stage = +(asked.get("stage") ?? state.stage);
  if (Number.isInteger(stage) && stages[stage]) state.stage = stage;
  const key = asked.get("select") || "";
  const known = { op: data.ops, k: data.steps, l: data.locs }[key.split(":")[0]]?.[key.split(":")[1]];
  if (STAGE_NAMES[asked.get("code")]) state.code = asked.get("code");
  return { view: VIEWS.some(([v]) => v === asked.get("view")) ? asked.get("view") : "graph", key: known ? key : null };
}

const address = openAddress();
showTheme();
drawTicks();
setView("graph");
setGrouping(state.grouping);
setStage(state.stage);
if (address.key) go(address.key); else showPanel();
if (address.view !== "graph") setView(address.view);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
