// One sheet large, its answers, one decision (review_page.py). All texts are set as text, never as HTML.

const KEYS = `a or 1 accept · 2 to 5 that answer instead · c correct (type a name, Tab completes it, Enter) · d doubt, then c cf., f aff., g genus only ·
p put aside · r remark (Enter keeps it for the decision) · u undo · n or → next · b or ← back · + − 0 zoom, Shift and arrows move ·
/ search · o order, s which sheets, t status: each time the next choice · w write the tables · Esc leaves a field`;

function render({ model, el }) {
  el.classList.add("course-review");
  el.tabIndex = -1;
  let number = 0;
  const waiting = new Map();
  const onWord = (word, buffers) => {
    waiting.get(word.number)?.([word, buffers]);
    waiting.delete(word.number);
  };
  model.on("msg:custom", onWord);
  const ask = (what, content = {}) =>
    new Promise((resolve) => {
      waiting.set(++number, resolve);
      model.send({ number, ask: what, with: content });
    });

  const head = add(el, "header");
  const progress = add(head, "span", "far");
  progress.setAttribute("role", "status");
  const bar = add(head, "progress");
  const order = add(head, "select");
  const state = add(head, "select");
  const status = add(head, "select");
  const search = Object.assign(add(head, "input"), { type: "search", placeholder: "file, species, family" });
  order.setAttribute("aria-label", "Order");
  state.setAttribute("aria-label", "Which sheets");
  status.setAttribute("aria-label", "Status of the answer");
  search.setAttribute("aria-label", "Search");
  const problems = add(el, "div", "problems");
  const body = add(el, "div", "body");
  const stage = add(body, "div", "stage");
  const image = add(stage, "img");
  image.draggable = false;
  const side = add(body, "div", "side");
  const title = add(side, "h1");
  const told = add(side, "p", "told");
  told.setAttribute("role", "alert");
  const decided = add(side, "p", "decided");
  const answers = add(side, "ol");
  const similar = add(side, "div", "similar");
  const form = add(side, "form");
  const name = Object.assign(add(form, "input", "name"), { placeholder: "another name", autocomplete: "off" });
  name.setAttribute("aria-label", "Correct to");
  const names = add(form, "ul", "names");
  const remark = Object.assign(add(form, "input", "remark"), { placeholder: "remark, kept with the decision", autocomplete: "off" });
  remark.setAttribute("aria-label", "Remark");
  const buttons = add(side, "div", "buttons");
  const keys = add(side, "details");
  add(keys, "summary", "", "Keys");
  add(keys, "p", "", KEYS);
  keys.open = true;

  let view = []; // positions of sheets
  let at = 0; // in view
  let shown = null; // what the kernel said of the sheet that is shown
  let busy = false; // a decision is on its way to the disk
  let doubting = false;
  let size = null; // of the file that is shown: width, height
  let scale = 1, left = 0, top = 0;
  const history = []; // places decided here, for undo
  const images = new Map(); // place -> promise of {url, width, height}

  const tell = (text) => (told.textContent = text);

  function picture(place) {
    if (!images.has(place)) {
      images.set(place, ask("image", { place }).then(([word, buffers]) => {
        if (word.refused) images.delete(place); // it may be put right meanwhile
        if (word.refused) return word;
        return { ...word, url: URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" })) };
      }));
      for (const old of [...images.keys()].slice(0, -6)) {
        images.get(old)?.then((each) => each.url && URL.revokeObjectURL(each.url));
        images.delete(old);
      }
    }
    return images.get(place);
  }

  function place() {
    image.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
  }
  function fit() {
    scale = 1;
    left = Math.max(0, (stage.clientWidth - image.clientWidth) / 2);
    top = Math.max(0, (stage.clientHeight - image.clientHeight) / 2);
    place();
  }
  // The copy is a square: the proportions are the file's.
  function shape() {
    if (!size) return;
    image.style.aspectRatio = `${size.width} / ${size.height}`;
    const tall = size.width / size.height < stage.clientWidth / stage.clientHeight;
    image.style.width = tall ? "auto" : "100%";
    image.style.height = tall ? "100%" : "auto";
    if (scale === 1) fit(); // a window that changes leaves the zoom
  }
  function zoom(by, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const next = Math.min(12, Math.max(1, scale * by));
    left = x - ((x - left) * next) / scale;
    top = y - ((y - top) * next) / scale;
    scale = next;
    if (scale === 1) fit();
    else place();
  }

  function showProgress(word) {
    const { done, total, left: rest, moved, seconds } = word;
    bar.max = total;
    bar.value = done;
    let text = `${done.toLocaleString()} of ${total.toLocaleString()} decided`;
    if (seconds !== null && rest) text += `, about ${time(seconds)} for the rest`;
    if (moved) text += `, images not there: ${moved.toLocaleString()}`;
    progress.textContent = text;
  }

  // Nothing is decided of a sheet before its image can be seen: a key pressed too early does nothing.
  async function show() {
    doubting = false;
    shown = null;
    remark.value = name.value = "";
    names.replaceChildren();
    if (!view.length) {
      title.textContent = "No sheet is left in this choice";
      for (const each of [answers, similar]) each.replaceChildren();
      decided.textContent = "";
      image.removeAttribute("src");
      el.dataset.shown = "none";
      return;
    }
    const current = view[at];
    const [word] = await ask("sheet", { place: current });
    if (view[at] !== current) return;
    if (word.refused) return tell(word.refused);
    title.textContent = word.file;
    showDecision(word.decision);
    showProgress(word.progress);
    answers.replaceChildren();
    word.guesses.forEach((guess, index) => {
      const line = add(answers, "li");
      const button = add(line, "button", "", guess.species);
      button.title = index ? "correct to this name" : "accept";
      button.onclick = () => choose(index);
      add(line, "span", "share", ` ${(100 * guess.probability).toFixed(1)} % `);
      add(line, "small", "", guess.family);
    });
    add(answers, "p", "status", word.status);
    similar.replaceChildren();
    image.removeAttribute("src");
    const ready = () => ((shown = word), (el.dataset.shown = String(current)));
    if (word.moved) return ready(), tell(`${word.file}: the image is not in the folder`);
    const found = await picture(current);
    if (view[at] !== current) return;
    if (found.refused) return ready(), tell(found.refused);
    size = found;
    scale = 1;
    shape();
    image.alt = word.file;
    image.src = found.url;
    await image.decode().catch(() => {}); // another sheet may have been asked for
    if (view[at] !== current) return;
    ready();
    if (found.note) tell(found.note);
    if (at + 1 < view.length) picture(view[at + 1]);
    if (begun.similar) setTimeout(() => view[at] === current && showSimilar(current), 300); // who goes on at once waits for none
  }

  async function showSimilar(current) {
    const [word, buffers] = await ask("similar", { place: current });
    if (view[at] !== current) return;
    similar.replaceChildren();
    if (word.refused) return void add(similar, "small", "", word.refused);
    let next = 0;
    for (const each of word.similar) {
      const figure = add(similar, "figure");
      if (each.picture) {
        const small = add(figure, "img");
        small.onload = () => URL.revokeObjectURL(small.src);
        small.src = URL.createObjectURL(new Blob([buffers[next++]], { type: "image/jpeg" }));
      }
      add(figure, "figcaption", "", each.species);
      add(figure, "small", "", each.image_id);
    }
  }

  function showDecision(found) {
    const words = { accept: "accepted", correct: "corrected to", doubt: "doubtful:", aside: "put aside" };
    decided.textContent = found
      ? `${words[found.do]} ${found.do === "aside" ? "" : [found.qualifier, found.name].join(" ")}${found.new ? " (new name)" : ""} ${found.remarks ? "· " + found.remarks : ""} · ${found.by}, ${found.at.slice(0, 16).replace("T", " ")} UTC`
      : "";
  }

  async function load() {
    const [word] = await ask("view", { order: order.value, state: state.value, text: search.value, status: status.value });
    if (word.refused) return tell(word.refused);
    view = word.view;
    at = 0;
    tell("");
    await show();
  }

  function step(by) {
    if (!view.length) return;
    at = Math.min(view.length - 1, Math.max(0, at + by));
    tell("");
    return show();
  }

  async function decide(what, more = {}) {
    if (busy || !shown) return;
    busy = true;
    const decidedPlace = view[at];
    const [word] = await ask("decide", { place: decidedPlace, do: what, remarks: remark.value, ...more });
    busy = false;
    if (word.refused) return tell(word.refused);
    history.push(decidedPlace);
    el.focus({ preventScroll: true });
    showProgress(word.progress);
    if (view[at] !== decidedPlace) return; // another sheet has been asked for meanwhile
    if (at + 1 < view.length) {
      step(1);
      return word.decision.new && tell(`New name: ${word.decision.name} · u undoes`);
    }
    showDecision(word.decision);
    tell("That was the last sheet of this choice.");
  }

  async function undo() {
    if (busy || !(view.length || history.length)) return;
    busy = true;
    const back = shown?.decision || !history.length ? view[at] : history.at(-1);
    const [word] = await ask("decide", { place: back, do: "undo" });
    busy = false;
    if (word.refused) return tell(word.refused);
    if (history.includes(back)) history.splice(history.lastIndexOf(back), 1);
    if (!view.includes(back)) view.splice(at, 0, back);
    at = view.indexOf(back);
    await show();
    tell("Undone.");
  }

  const choose = (index) =>
    index === 0 ? decide("accept") : shown?.guesses[index] && decide("correct", { name: shown.guesses[index].species });
  const doubt = (qualifier) => decide("doubt", { qualifier, name: name.value });
  async function tables() {
    const [word] = await ask("tables");
    tell(word.refused ?? `Tables written: ${word.labels} labels, ${word.others} sheets without one.`);
  }

  const doing = [
    ["Accept", () => decide("accept")], ["cf.", () => doubt("cf.")], ["aff.", () => doubt("aff.")],
    ["Genus only", () => doubt("sp.")], ["Put aside", () => decide("aside")], ["Undo", undo],
    ["Back", () => step(-1)], ["Next", () => step(1)], ["Write tables", tables],
  ];
  for (const [text, action] of doing) add(buttons, "button", "", text).onclick = action;

  form.onsubmit = (event) => {
    event.preventDefault();
    if (document.activeElement === remark) el.focus();
    else decide("correct", { name: name.value });
  };
  add(form, "button", "", "Correct");
  let taken = -1; // of the completions
  name.oninput = async () => {
    taken = -1;
    const text = name.value;
    const [word] = await ask("complete", { text });
    if (name.value !== text) return;
    names.replaceChildren();
    for (const each of word.names ?? []) {
      const line = add(names, "li");
      const button = Object.assign(add(line, "button", "", each), { type: "button" });
      button.onclick = () => ((name.value = each), names.replaceChildren(), name.focus());
    }
  };
  name.onkeydown = (event) => {
    const by = { Tab: event.shiftKey ? 0 : 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    const lines = [...names.children];
    if (!by || !lines.length) return;
    event.preventDefault(); // the next completion
    taken = by < 0 && taken < 0 ? lines.length - 1 : (taken + by + lines.length) % lines.length;
    lines.forEach((line, index) => line.classList.toggle("taken", index === taken));
    name.value = lines[taken].textContent;
  };
  for (const each of [order, state, status]) each.onchange = () => (load(), el.focus());
  search.onchange = load;
  search.onkeydown = (event) => event.key === "Enter" && el.focus(); // which is a change
  const next = (select) => () => {
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    load();
  };

  const pressed = {
    a: () => decide("accept"), c: () => name.focus(), p: () => decide("aside"), u: undo, r: () => remark.focus(),
    o: next(order), s: next(state), t: next(status),
    n: () => step(1), b: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1), w: tables,
    d: () => ((doubting = true), tell("Doubt: c for cf., f for aff., g for the genus only")),
    "/": () => search.focus(), "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit,
    1: () => choose(0), 2: () => choose(1), 3: () => choose(2), 4: () => choose(3), 5: () => choose(4),
  };
  const doubts = { c: "cf.", f: "aff.", g: "sp." };
  const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      event.preventDefault(); // which empties a search
      return (doubting = false), tell(""), el.focus({ preventScroll: true });
    }
    if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
    if (event.repeat && !event.key.startsWith("Arrow")) return; // a key held down decides one sheet
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key; // with caps lock too
    let action = pressed[key];
    if (event.shiftKey && moves[event.key]) action = () => ((left += moves[event.key][0]), (top += moves[event.key][1]), place());
    else if (doubting && doubts[key]) action = () => doubt(doubts[key]);
    if (key !== "d") doubting = false;
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has keys of its own
    action();
  };
  document.addEventListener("keydown", onKey, true);

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  let drag = null;
  stage.onpointerdown = (event) => ((drag = [event.clientX - left, event.clientY - top]), stage.setPointerCapture(event.pointerId));
  stage.onpointermove = (event) => drag && ((left = event.clientX - drag[0]), (top = event.clientY - drag[1]), place());
  stage.onpointerup = stage.onpointercancel = () => (drag = null);
  stage.ondblclick = () => (scale > 1 ? fit() : zoom(3));

  function list(text, lines) {
    if (!lines.length) return;
    const details = add(problems, "details");
    add(details, "summary", "", `${text}: ${lines.length.toLocaleString()}`);
    for (const line of lines) add(details, "div", "", line);
  }

  let begun = {};
  ask("begin").then(([word]) => {
    if (word.refused) return tell(word.refused);
    begun = word;
    options(order, Object.entries(word.orders));
    options(state, Object.entries(word.states));
    options(status, [["", "any status"], ...word.statuses.map((each) => [each, each])]);
    for (const line of word.problems.slice(0, 3)) add(problems, "p", "", line);
    list("Further lines that do not count", word.problems.slice(3));
    list("Images that are not in the folder; what was decided of them is kept", word.moved);
    el.focus({ preventScroll: true });
    load();
  });
  const resized = new ResizeObserver(shape);
  resized.observe(stage);
  return () => {
    model.off("msg:custom", onWord);
    document.removeEventListener("keydown", onKey, true);
    resized.disconnect();
  };
}

function add(parent, kind, name = "", text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  parent.append(made);
  return made;
}

function options(select, pairs) {
  for (const [value, text] of pairs) Object.assign(add(select, "option", "", text), { value });
}

function time(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

export default { render };
