// The server away, restarted, or late: what is asked of it waits, a sentence says so, and it is asked again when it is back.
// Gradio's server functions do not reject without a network: they give undefined.

const SOON = 1_000; // milliseconds between two tries, at first and at most
const LATE = 10_000;
const PROBE = 8_000; // milliseconds that a try may take

export class Network {
  // away(true | false) is told when the server is gone, and when it is back.
  constructor(server, away) {
    Object.assign(this, { server, away, started: null, waiting: null });
    this.alive();
  }

  // The answer of a server function. Only what cannot be answered though the server is there is an error.
  async ask(name, request) {
    for (let failed = false; ; failed = true) {
      const answer = await this.once(name, request);
      if (answer !== undefined) return answer;
      if (failed && (await this.alive())) return null;
      await this.back();
    }
  }

  // Nobody waits for the answer, and it is not asked again.
  async once(name, request) {
    try {
      return (await this.server[name](request)) ?? undefined;
    } catch {
      return undefined;
    }
  }

  // A file's response, whatever its status.
  async fetch(address) {
    for (;;) {
      try {
        return await fetch(address);
      } catch {
        await this.back();
      }
    }
  }

  // What send() gives, which is tried again if the server was away; it throws where the server is there and does not take it.
  async upload(send) {
    for (;;) {
      try {
        const sent = await send();
        if (sent?.path) return sent;
      } catch { /* refused, or the server is away */ }
      if (await this.alive()) throw new Error('refused');
      await this.back();
    }
  }

  // Whether the server answers; `started` says which one it is.
  async alive() {
    try {
      const response = await fetch('lite/alive', { cache: 'no-store', signal: AbortSignal.timeout(PROBE) });
      const text = response.ok ? await response.text() : '';
      if (!/^[0-9a-f]{32}$/.test(text)) return false; // a proxy's own page
      this.started = text;
      return true;
    } catch {
      return false;
    }
  }

  // Resolves when the server is there.
  back() {
    this.waiting ??= this.poll().finally(() => { this.waiting = null; });
    return this.waiting;
  }

  async poll() {
    if (await this.alive()) return;
    this.away(true);
    for (let pause = SOON; !(await this.alive()); pause = Math.min(2 * pause, LATE)) await rest(pause);
    this.away(false);
  }
}

// For a time, or until the browser thinks that there is a network, or somebody looks at the page again.
function rest(milliseconds) {
  return new Promise((done) => {
    const timer = setTimeout(end, milliseconds);
    function end() {
      clearTimeout(timer);
      window.removeEventListener('online', end);
      document.removeEventListener('visibilitychange', end);
      done();
    }
    window.addEventListener('online', end);
    document.addEventListener('visibilitychange', end);
  });
}
