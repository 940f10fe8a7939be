// The report's data and what is derived from it; small helpers for elements and numbers.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (name === "class") e.className = value;
    else e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return e;
}

function shape(tag, attributes = {}, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

const grouped = (n) => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
const plural = (n, word) => `${grouped(n)} ${word}${n === 1 ? "" : "s"}`;

function scaled(value, unit, step = 1000) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let k = 0;
  while (value >= step && k < prefixes.length - 1) { value /= step; k += 1; }
  const digits = k === 0 ? (Number.isInteger(value) ? 0 : 2) : value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${prefixes[k]}${unit}`;
}

const bytes = (n) => scaled(n, "B");

function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  return seconds >= 1e-3 ? `${(seconds * 1e3).toFixed(2)} ms` : `${(seconds * 1e6).toFixed(1)} µs`;
}

// The value of a formula of the symbolic dimensions; integers, division rounds down.
const OPERATIONS = {
  "+": (...a) => a.reduce((x, y) => x + y, 0),
  "*": (...a) => a.reduce((x, y) => x * y, 1),
  "//": (a, b) => Math.floor(a / b),
  "%": (a, b) => ((a % b) + b) % b,
  max: Math.max,
  min: Math.min,
  isqrt: (a) => Math.floor(Math.sqrt(a)),
};

function evaluate(tree, dims) {
  if (typeof tree === "number") return tree;
  if (typeof tree === "string") return dims[tree];
  const [operation, ...parts] = tree;
  return OPERATIONS[operation](...parts.map((p) => evaluate(p, dims)));
}

const lineText = (k) => {
  if (k === null || k === undefined) return "";
  const { file, line, role } = data.locs[k];
  return `${file}:${line}${role ? " " + role : ""}`;
};
const isBackward = (k) => k !== null && k !== undefined && data.locs[k].role === "grad";

// For each stage: its nodes by number, who reads each, and which leave with it.
const stages = data.stages.map((stage) => {
  const nodes = new Map(stage.nodes.map(([id, name, operands]) => [id, { id, name, operands, users: [] }]));
  for (const node of nodes.values()) {
    for (const o of new Set(node.operands)) if (typeof o === "number") nodes.get(o).users.push(node.id);
  }
  const writes = new Map();
  const note = (id, text) => writes.set(id, [...(writes.get(id) || []), text]);
  stage.outputs.forEach((id, k) => note(id, stage.outputs.length > 1 ? `return ${k}` : "return"));
  for (const [state, id] of stage.updates) note(id, data.ops[state].label);
  return { ...stage, nodes, writes, marks: new Map(Object.entries(stage.marks).map(([id, mark]) => [+id, mark])) };
});

// In which stages each op is.
const presence = data.ops.map((_, id) => stages.flatMap((s, k) => (s.nodes.has(id) ? [k] : [])));

const isChip = (id) => data.ops[id].kind === "leaf";
const chipText = (id) => {
  const op = data.ops[id];
  if (op.op === "state") return op.label;
  return op.op === "full" ? op.attrs.replace(/^.*value = ([^,}]*).*$/, "$1") : `const ${op.type}`;
};

const timing = new Map((data.profile || []).map((row) => [row.kernel, row]));

// What is shown now; `listeners` draw it anew.
const state = { view: "graph", stage: stages.length - 1, grouping: data.steps.length ? "kernel" : "line", open: new Set(), selected: null, dims: { ...data.dims }, code: "loops" };
