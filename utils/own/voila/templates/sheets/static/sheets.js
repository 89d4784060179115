// A page that is left ends what answers it: Voila takes that word with this cookie only, and does not set it.
if (!/\b_xsrf=/.test(document.cookie)) {
  const secret = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  document.cookie = `_xsrf=${secret}; path=/; SameSite=Strict`;
}

// Tells when what answers a page has ended: a kernel that died is not started again, since it would know nothing.
const settings = JSON.parse(document.getElementById("jupyter-config-data").textContent);
const lost = document.getElementById("course-lost");
const tell = (text) => Object.assign(lost, { textContent: text, hidden: false });

// On a busy machine the widget can be shown before what it shows has come; a page that is loaded again has it.
function loadAgain() {
  const failed = [...document.querySelectorAll(".jupyter-widgets")].some((shown) => shown.textContent.startsWith("Error displaying widget"));
  const tries = Number(sessionStorage.getItem("course-tries"));
  if (!failed || tries >= 5) return;
  sessionStorage.setItem("course-tries", tries + 1);
  location.reload();
}

async function look() {
  loadAgain();
  try {
    const answer = await fetch(`${settings.baseUrl}api/kernels/${settings.kernelId}`, { cache: "no-store" });
    if (answer.status === 404)
      return tell("What answers this page has ended. The answers above stay; load the page again to go on.");
  } catch (error) {
    return tell("The course has been stopped where it was started. The answers above stay until the page is closed.");
  }
  setTimeout(look, 2000);
}

setTimeout(look, 2000);
