"use strict";
const at = (id) => document.getElementById(id);
const headers = () => ({ "Content-Type": "application/json", ...(at("token").value ? { Authorization: `Bearer ${at("token").value}` } : {}) });
let model = null;
let running = null;

const told = (text, isError = false) => { at("note").textContent = text; at("note").classList.toggle("error", isError); };

async function problem(answer) {
  try { return (await answer.json()).error.message; } catch { return `got status ${answer.status}`; }
}

async function findModel() {
  const answer = await fetch("/v1/models", { headers: headers() });
  if (!answer.ok) throw new Error(await problem(answer));
  model = (await answer.json()).data[0].id;
  at("model").textContent = model;
}

async function write() {
  if (model === null) await findModel();
  running = new AbortController();
  const began = performance.now();
  const prompt = at("prompt").value;
  const body = { model, prompt, stream: true, stream_options: { include_usage: true } };
  for (const name of ["max_tokens", "temperature", "top_p", "seed"]) if (at(name).value !== "") body[name] = Number(at(name).value);
  const answer = await fetch("/v1/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal });
  if (!answer.ok) throw new Error(await problem(answer));
  const written = document.createElement("span");
  written.className = "new";
  at("text").replaceChildren(prompt, written);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const events = (left + value).split("\n\n");
    left = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") continue;
      const piece = JSON.parse(data);
      if (piece.error) throw new Error(piece.error.message);
      for (const choice of piece.choices) written.append(choice.text);
      if (piece.usage) told(`${piece.usage.completion_tokens} tokens in ${((performance.now() - began) / 1000).toFixed(1)} s`);
    }
  }
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("go").disabled = true;
  at("stop").disabled = false;
  told("");
  try { await write(); } catch (error) { if (error.name === "AbortError") told("Stopped."); else told(error.message, true); }
  at("go").disabled = false;
  at("stop").disabled = true;
});
at("stop").addEventListener("click", () => running?.abort());
findModel().catch((error) => told(error.message, true));
