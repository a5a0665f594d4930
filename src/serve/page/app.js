"use strict";

const WORDS = {
  vi: {
    new: "Cuộc trò chuyện mới", empty: "Thêm ảnh (chọn, kéo thả hoặc dán) rồi đặt câu hỏi.", add: "Thêm ảnh", send: "Gửi",
    stop: "Dừng", settings: "Thiết lập", preset: "Mẫu", automatic: "tự động", beams: "Số beam", penalty: "Phạt lặp",
    tiles: "Số ô tối đa", tokens: "Số token tối đa", key: "Khóa API", close: "Đóng", ask: "Câu hỏi…",
    seen: (n, tokens) => `${n} ô, ${tokens} token`, remove: "Bỏ ảnh", stopped: "đã dừng",
    usage: (u, s) => `${u.prompt_tokens} token câu hỏi (${u.prompt_tokens_details.cached_tokens} từ bộ nhớ đệm), ${u.completion_tokens} token trả lời, ${s} giây`,
  },
  en: {
    new: "New conversation", empty: "Add images (choose, drop or paste), then ask.", add: "Add images", send: "Send",
    stop: "Stop", settings: "Settings", preset: "Preset", automatic: "automatic", beams: "Beams",
    penalty: "Repetition penalty", tiles: "Most tiles", tokens: "Most tokens", key: "API key", close: "Close",
    ask: "Question…", seen: (n, tokens) => `${n} tiles, ${tokens} tokens`, remove: "Remove image", stopped: "stopped",
    usage: (u, s) => `${u.prompt_tokens} prompt tokens (${u.prompt_tokens_details.cached_tokens} cached), ${u.completion_tokens} answer tokens, ${s} s`,
  },
};

const $ = (id) => document.getElementById(id);
const NUMBERS = ["num_beams", "repetition_penalty", "max_tiles", "max_tokens"];
let words = WORDS.vi;
let messages = [];
let attached = []; // {url, item, what}: the image, its place on the page, the button that says what the model sees
let running = null; // AbortController of the answer that comes in

function translate(language) {
  words = WORDS[language];
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = words[element.dataset.say];
  $("question").placeholder = words.ask;
  $("language").textContent = language === "vi" ? "English" : "Tiếng Việt";
  $("language").lang = language === "vi" ? "en" : "vi";
}

function headers() {
  const key = $("key").value;
  return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
}

/** The settings of the form as fields of a request. */
function settings(names) {
  const fields = {};
  if ($("preset").value) fields.preset = $("preset").value;
  for (const name of names) if ($(name).value) fields[name] = Number($(name).value);
  return fields;
}

function add(parent, tag, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

function turn(kind, text = "") {
  const item = add($("turns"), "li", { className: kind, textContent: text });
  $("empty").hidden = true;
  item.scrollIntoView({ block: "end" });
  return item;
}

async function failure(response) {
  const text = await response.text();
  try { return JSON.parse(text).error.message; } catch { return `${response.status} ${text}`; }
}

async function attach(files) {
  for (const file of files) {
    if (!file.type.startsWith("image/")) continue;
    const url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(file);
    });
    const item = add($("images"), "li");
    add(item, "img", { src: url, alt: file.name });
    const what = add(item, "button", { type: "button", textContent: "…" });
    const image = { url, item, what };
    const remove = add(item, "button", { type: "button", textContent: "×", title: words.remove });
    remove.onclick = () => { attached = attached.filter((other) => other !== image); item.remove(); };
    attached.push(image);
    inspect(image);
  }
}

/** Asks the server which tiles the model gets of an image. */
async function inspect({ url, what }) {
  const body = JSON.stringify({ image: url, ...settings(["max_tiles"]) });
  const response = await fetch("/v1/inspect", { method: "POST", headers: headers(), body });
  what.disabled = !response.ok;
  if (!response.ok) return void (what.textContent = await failure(response));
  const seen = await response.json();
  what.textContent = words.seen(seen.tiles.length, seen.image_tokens);
  what.onclick = () => show(seen);
}

function show(seen) {
  $("seen-what").textContent = words.seen(seen.tiles.length, seen.image_tokens);
  const grid = $("seen-tiles");
  grid.replaceChildren();
  grid.style.gridTemplateColumns = `repeat(${seen.grid.columns}, auto)`;
  seen.tiles.forEach((tile, index) => {
    const last = seen.thumbnail && index === seen.tiles.length - 1;
    add(grid, "img", { src: tile, alt: `${index + 1}`, className: last ? "thumbnail" : "" });
  });
  $("seen").showModal();
}

/** The data of each server-sent event of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function ask(question) {
  // A new conversation may begin before this answer ends.
  const conversation = messages;
  const images = attached;
  const shown = turn("user");
  for (const { url } of images) add(shown, "img", { src: url, alt: "" });
  add(shown, "span", { textContent: question });
  const content = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  content.push({ type: "text", text: question });
  conversation.push({ role: "user", content });
  attached = [];
  $("images").replaceChildren();
  $("question").value = "";
  const answer = turn("assistant waiting");
  const said = add(answer, "span");
  const started = performance.now();
  running = new AbortController();
  busy(true);
  let failed = null;
  try {
    const request = { messages: conversation, stream: true, stream_options: { include_usage: true }, ...settings(NUMBERS) };
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(request), signal: running.signal,
    });
    if (!response.ok) throw new Error(await failure(response));
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      said.textContent += chunk.choices[0]?.delta?.content ?? "";
      if (chunk.usage) {
        const seconds = ((performance.now() - started) / 1000).toFixed(1);
        add(answer, "small", { textContent: words.usage(chunk.usage, seconds) });
      }
      answer.scrollIntoView({ block: "end" });
    }
  } catch (error) {
    if (error.name === "AbortError") add(answer, "small", { textContent: words.stopped });
    else failed = error.message;
  }
  answer.classList.remove("waiting");
  running = null;
  busy(false);
  if (failed === null) return conversation.push({ role: "assistant", content: said.textContent });
  // A question that was refused is no part of the conversation: it can be changed and asked again.
  answer.className = "error";
  answer.textContent = failed;
  conversation.pop();
  $("question").value = question;
  attached = images;
  for (const { item } of images) $("images").append(item);
}

function busy(is) {
  $("send").hidden = is;
  $("stop").hidden = !is;
}

async function describeModel() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) return;
  const model = (await response.json()).data[0];
  $("model").textContent = model.id;
  document.title = `${model.id} – vintern`;
  if ($("preset").length > 1) return;
  for (const preset of model.presets) {
    add($("preset"), "option", { value: preset.name, textContent: preset.name, title: preset.description ?? "" });
  }
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (question && !running) ask(question);
};
$("question").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); }
};
$("stop").onclick = () => running?.abort();
$("files").onchange = () => { attach([...$("files").files]); $("files").value = ""; };
$("new").onclick = () => {
  running?.abort();
  messages = [];
  $("turns").replaceChildren();
  $("empty").hidden = false;
};
$("language").onclick = () => translate($("language").lang);
for (const id of ["preset", "max_tiles"]) $(id).onchange = () => attached.forEach(inspect);
$("key").onchange = describeModel;
addEventListener("paste", (event) => attach([...event.clipboardData.files]));
addEventListener("dragover", (event) => { event.preventDefault(); $("ask").classList.add("over"); });
addEventListener("dragleave", () => $("ask").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("ask").classList.remove("over");
  attach([...event.dataTransfer.files]);
});
translate(navigator.language.startsWith("vi") ? "vi" : "en");
describeModel();
