"use strict";
// Everything that is shown came from outside: it is only ever set as text, never as markup.

const SPARK_SECONDS = 120;
const STREAM_LINES = 12;
const PARTS = ["history", "similar_users", "profile", "wish", "popular", "new"];
const state = { user: "", writes: false, paused: false, source: null, titles: new Map(), delivered: [], spark: [], shown: [] };
const at = (id) => document.getElementById(id);

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function button(text, label, act) {
  const element = make("button", text);
  element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  element.addEventListener("click", act);
  return element;
}

const title = (id) => state.titles.get(id) || id;

async function ask(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || answer.statusText);
  return body;
}

async function publish(topic, value) {
  const answer = await fetch(`/live/publish/${topic}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Coldstream": "1" },
    body: JSON.stringify(value),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || answer.statusText);
  return body;
}

async function learnTitles(ids) {
  const missing = [...new Set(ids)].filter((id) => !state.titles.has(id)).slice(0, 100);
  if (!missing.length) return;
  const query = missing.map((id) => `id=${encodeURIComponent(id)}`).join("&");
  for (const item of (await ask(`/items?${query}`)).items) state.titles.set(item.item_id, item.title);
}

// --- the stream

function connect() {
  if (state.source) state.source.close();
  const query = state.user ? `?user=${encodeURIComponent(state.user)}` : "";
  state.source = new EventSource(`/live/stream${query}`);
  state.source.onmessage = (message) => hear(JSON.parse(message.data));
  state.source.onerror = () => showHealth("bad", "no connection: trying again …");
}

function showHealth(kind, text) {
  const pill = at("health");
  if (pill.textContent === text) return;
  pill.textContent = text;
  pill.className = `pill ${kind}`;
}

function hear(tick) {
  showHealth(tick.reasons.length ? "bad" : "good", tick.reasons.join("; ") || "ready");
  for (const [id, text] of Object.entries(tick.titles)) state.titles.set(id, text);
  if (state.titles.size > 5000) state.titles = new Map([...state.titles].slice(-2500));
  state.delivered.push([tick.at, tick.delivered]);
  state.delivered = state.delivered.filter(([then]) => then > tick.at - 5);
  const span = Math.max(tick.at - state.delivered[0][0], 1);
  at("rate").textContent = (state.delivered.reduce((sum, [, count]) => sum + count, 0) / span).toFixed(1);
  for (const happening of tick.lists) {
    if (happening.milliseconds !== null) state.spark.push([tick.at, happening.milliseconds]);
    if (happening.recommendation.user_id === state.user) showList(happening.recommendation, happening.milliseconds);
  }
  showLatency(tick.at);
  if (!state.paused) showStream(tick.lists);
}

function showLatency(now) {
  state.spark = state.spark.filter(([then]) => then > now - SPARK_SECONDS);
  const values = state.spark.map(([, milliseconds]) => milliseconds);
  if (values.length) at("latency").textContent = values[values.length - 1].toFixed(values[values.length - 1] < 10 ? 1 : 0);
  const top = Math.max(...values, 1);
  const points = state.spark.map(([then, value]) => `${(240 - ((now - then) * 240) / SPARK_SECONDS).toFixed(1)},${(38 - (36 * value) / top).toFixed(1)}`);
  document.querySelector("#spark path").setAttribute("d", points.length ? `M${points.join("L")}h.01` : "");
  at("spark-top").textContent = values.length ? top.toFixed(0) : "–";
}

function showStream(lists) {
  for (const { recommendation, milliseconds } of lists) {
    const line = make("li");
    const head = make("div", undefined, "line");
    const user = recommendation.user_id;
    head.append(button(`user ${user}`, `Follow user ${user}`, () => follow(user)));
    const cause = `${recommendation.trigger.kind} · ${recommendation.strategy}`;
    head.append(make("span", milliseconds === null ? cause : `${cause} · ${milliseconds.toFixed(0)} ms`, "dull"));
    const best = recommendation.items.slice(0, 3).map((item) => title(item.item_id)).join(" · ");
    line.append(head, make("div", best, "what"));
    at("stream").prepend(line);
  }
  while (at("stream").children.length > STREAM_LINES) at("stream").lastChild.remove();
}

// --- a user's story

async function follow(user) {
  state.user = user;
  state.shown = [];
  at("user").value = user;
  at("user-note").textContent = "";
  connect();
  try {
    const list = await ask(`/recommendations/${encodeURIComponent(user)}`);
    if (state.user !== user) return;
    await learnTitles(list.items.map((item) => item.item_id));
    at("story").hidden = false;
    showList(list, null);
    await showStory(user);
  } catch (error) {
    at("user-note").textContent = error.message;
  }
}

function showList(list, milliseconds) {
  const held = document.activeElement.closest("#list li") && document.activeElement.dataset.act;
  const places = list.items.map((item) => {
    const line = make("li", undefined, state.shown.length && !state.shown.includes(item.item_id) ? "changed" : "");
    line.dataset.item = item.item_id;
    const doing = (type, text) => {
      const made = button(text, `${type} ${title(item.item_id)} from the list`, () => act(type, item, list.recommendation_id));
      made.dataset.act = `${type} ${item.item_id}`;
      return made;
    };
    const acts = make("span", undefined, "acts");
    if (state.writes) acts.append(doing("like", "like"), doing("purchase", "buy"), doing("dislike", "dislike"));
    const name = state.writes ? doing("click", title(item.item_id)) : make("span", title(item.item_id));
    name.className = "name";
    line.append(make("span", item.rank, "dull"), name, showParts(item), make("span", item.reason.text, "why"), acts);
    return line;
  });
  at("list").replaceChildren(...places);
  if (held) ([...at("list").querySelectorAll("button")].find((one) => one.dataset.act === held) || at("user-panel")).focus();
  state.shown = list.items.map((item) => item.item_id);
  const cause = list.trigger.kind === "request" ? "as it would be now" : `after the ${list.trigger.kind} at ${list.generated_at.slice(11, 19)}`;
  at("list-note").textContent = `${list.strategy}, ${cause}${milliseconds === null ? "" : `, in ${milliseconds.toFixed(0)} ms`}`;
  if (list.trigger.kind !== "request") showStory(list.user_id).catch(() => undefined);
}

function showParts(item) {
  const bar = make("span", undefined, "parts");
  const parts = Object.entries(item.parts).sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  const whole = parts.reduce((sum, [, value]) => sum + Math.abs(value), 0) || 1;
  for (const [name, value] of parts) {
    const piece = make("span", undefined, `${PARTS.includes(name) ? `part-${name}` : "part-other"}${value < 0 ? " against" : ""}`);
    piece.style.flexGrow = (Math.abs(value) / whole).toFixed(3);
    piece.title = `${name} ${value.toFixed(3)}`;
    bar.append(piece);
  }
  bar.setAttribute("role", "img");
  const said = parts.slice(0, 3).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ");
  bar.setAttribute("aria-label", `score ${item.score.toFixed(2)}: ${said}`);
  return bar;
}

function fill(id, lines) {
  at(id).replaceChildren(...lines);
  at(`no-${id}`).hidden = lines.length > 0;
}

async function showStory(user) {
  const story = await ask(`/users/${encodeURIComponent(user)}`);
  if (state.user !== user) return;
  at("user-note").textContent = story.known ? story.profile : "Nothing is known of this user: the list is what a stranger gets.";
  fill("taste", story.taste.map((item) => {
    const chip = make("li");
    chip.append(button(item.title, `Items like ${item.title}`, () => showSimilar(item.item_id, item.title)));
    return chip;
  }));
  fill("history", story.history.slice(0, 20).map((one) => {
    const line = make("li");
    const value = one.value === undefined || one.value === null ? "" : ` ${one.value}`;
    line.append(make("span", `${one.type}${value}: ${one.query || one.title || one.item_id}`), make("span", one.timestamp.slice(0, 16).replace("T", " "), "dull"));
    return line;
  }));
}

// --- the catalogue

function showFound(items, note) {
  at("search-note").textContent = note;
  at("found").replaceChildren(...items.map((item) => {
    state.titles.set(item.item_id, item.title);
    const line = make("li");
    line.append(make("div", item.title), make("div", (item.categories || []).join(", "), "hint"));
    const acts = make("div", undefined, "acts");
    acts.append(button("similar", `Items like ${item.title}`, () => showSimilar(item.item_id, item.title)));
    if (state.writes) {
      for (const type of ["view", "like", "purchase", "dislike"]) acts.append(button(type, `${type} ${item.title} as the user`, () => act(type, item)));
    }
    line.append(acts);
    return line;
  }));
}

async function search(words) {
  try {
    const { items } = await ask(`/items?query=${encodeURIComponent(words)}`);
    showFound(items, items.length ? `${items.length} items` : "nothing fits");
    if (state.writes && state.user) await publish("events", { user_id: state.user, type: "search", query: words });
  } catch (error) {
    at("search-note").textContent = error.message;
  }
}

async function showSimilar(id, name) {
  try {
    showFound((await ask(`/items/${encodeURIComponent(id)}/similar`)).items, `like ${name}`);
  } catch (error) {
    at("search-note").textContent = error.message;
  }
}

async function act(type, item, list) {
  const note = at(list ? "act-note" : "search-note");
  try {
    if (!state.user) throw new Error("follow a user first: the event is theirs");
    const from = list ? { recommendation_id: list } : {};
    await publish("events", { user_id: state.user, type, item_id: item.item_id, ...from });
    note.textContent = `${type} of ${title(item.item_id)} published for user ${state.user}`;
  } catch (error) {
    note.textContent = error.message;
  }
}

async function addItem(form) {
  const fields = new FormData(form);
  const categories = fields.get("categories").split(",").map((word) => word.trim()).filter(Boolean);
  const id = `live-${Date.now().toString(36)}`;
  try {
    await publish("items", { item_id: id, title: fields.get("title"), description: fields.get("description"), categories });
    at("item-note").textContent = `published as ${id}`;
    form.reset();
  } catch (error) {
    at("item-note").textContent = error.message;
  }
}

// --- figures that are not in the stream

async function readMetrics() {
  try {
    const text = await (await fetch("/metrics")).text();
    const sum = (name) => [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? ([0-9.e+]+)$`, "gm"))].reduce((all, match) => all + Number(match[1]), 0);
    at("lag").textContent = sum("coldstream_lag_records").toLocaleString();
    at("known").textContent = sum("coldstream_known_items").toLocaleString();
  } catch {
    at("lag").textContent = "–";
  }
}

async function start() {
  at("user-form").addEventListener("submit", (event) => { event.preventDefault(); follow(at("user").value.trim()); });
  at("search-form").addEventListener("submit", (event) => { event.preventDefault(); search(at("search").value.trim()); });
  at("item-form").addEventListener("submit", (event) => { event.preventDefault(); addItem(event.target); });
  at("pause").addEventListener("click", () => {
    state.paused = !state.paused;
    at("pause").setAttribute("aria-pressed", String(state.paused));
    at("pause").textContent = state.paused ? "Go on" : "Pause";
  });
  for (const name of PARTS) at("legend").append(make("li", name.replace("_", " "), `part-${name}`));
  connect();
  readMetrics();
  setInterval(readMetrics, 3000);
  state.writes = (await ask("/live/may")).writes;
  at("item-form").hidden = !state.writes;
  const user = new URLSearchParams(location.search).get("user");
  if (user) follow(user);
}

start();
