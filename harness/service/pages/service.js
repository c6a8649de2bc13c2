// Pages are whole without this: it keeps the page of something under way up to date, and follows it to its end.
"use strict";
const now = document.getElementById("now");
if (now && now.dataset.events && window.EventSource) {
  let asked = false, again = false;
  const refresh = async () => {
    if (asked) { again = true; return; }
    asked = true;
    try {
      const answer = await fetch(now.dataset.now, { headers: { Accept: "text/html" } });
      if (answer.ok) {
        const open = [...now.querySelectorAll("details")].map((d) => d.open);
        now.innerHTML = await answer.text();
        now.querySelectorAll("details").forEach((d, n) => { if (open[n]) d.open = true; });
      }
    } catch { /* the service may be away for a moment; the stream comes again by itself */ }
    setTimeout(() => { asked = false; if (again) { again = false; refresh(); } }, 1000);
  };
  const events = new EventSource(now.dataset.events);
  events.addEventListener("record", refresh);
  events.addEventListener("job", refresh);
  events.addEventListener("end", () => { events.close(); location.reload(); });
  if (now.dataset.now.startsWith("/jobs/")) setInterval(refresh, 3000);
}
