// Asks for the session once a second, writes down what changed, and says when the connection has ended.
"use strict";

const SESSION_ENDED = 4401;
const MOST_LINES = 8;
const LONGEST_PAUSE = 4000;

const page = document.getElementById("live");
const at = (name) => document.getElementById(`live-${name}`);
const say = (name, text) => { at(name).textContent = text; };
let known = "";
let tries = 0;

function note(text) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toTimeString().slice(0, 8);
  line.append(time, " ", text);
  at("log").prepend(line);
  while (at("log").children.length > MOST_LINES) at("log").lastElementChild.remove();
}

function show(seen) {
  tries = 0;
  const place = [seen.node, seen.source].filter(Boolean).join(": ");
  page.dataset.state = "open";
  say("state", "open");
  say("outcome", `${seen.outcome}: ${seen.why}`);
  say("things", seen.things === null ? "nobody knows while the store is stopped" : seen.things);
  say("place", place || "the store of this process");
  const now = JSON.stringify([seen.outcome, seen.version, seen.things]);
  if (now === known) return;
  known = now;
  const version = seen.version === null ? "" : `, version ${seen.version}`;
  note(`${seen.outcome}${version}: ${seen.why}${place && ` (${place})`}`);
}

function closed(code) {
  const ended = code === SESSION_ENDED;
  const words = `closed with ${code}, ${ended ? "the session has ended" : "connecting again"}`;
  page.dataset.state = ended ? "ended" : "closed";
  say("state", words);
  for (const name of ["outcome", "things", "place"]) say(name, ended ? "gone" : "–");
  if (ended) {
    note(words);
    at("end").hidden = false;
    document.title = `Ended · ${document.title}`;
  } else {
    tries += 1;
    setTimeout(connect, Math.min(500 * tries, LONGEST_PAUSE));
  }
}

function connect() {
  const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/live/socket`);
  const look = () => socket.send("look");
  let clock;
  socket.onopen = () => { look(); clock = setInterval(look, 1000); };
  socket.onmessage = (message) => show(JSON.parse(message.data));
  socket.onclose = (closing) => { clearInterval(clock); closed(closing.code); };
}

at("off").hidden = true;
connect();
