// The place where sheets are dropped, and their answers (drop.py). One file at a time goes to the kernel, so that no
// message is longer than one file, and the answer to the first is there while the others wait.

const NEWS = 20000; // milliseconds without a word from the kernel, after which a line says so

function render({ model, el }) {
  el.classList.add("course-drop");
  const label = element("label", "place");
  const input = element("input");
  Object.assign(input, { type: "file", multiple: true, accept: ".jpg,.jpeg,.png,.tif,.tiff" });
  label.append(input, element("b", "", "Choose sheets"), element("span", "", " or drop them here: JPEG, PNG or TIFF"));
  const about = element("div");
  const state = element("p", "state");
  state.setAttribute("role", "status");
  const answers = element("div", "answers");
  el.append(about, label, state, answers);

  const waiting = []; // files
  let sent = 0; // files that went to the kernel
  let heard = () => {}; // called with the kernel's next word

  const ask = (content, buffers) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => show("It takes longer than usual."), NEWS);
      heard = (word, pictures) => (clearTimeout(late), resolve([word, pictures]));
      try {
        model.send(content, undefined, buffers);
      } catch (error) {
        reject(error);
      }
    });

  const show = (text) => (state.textContent = text);

  function refuse(name, reason) {
    const line = element("p", "refused");
    line.append(element("b", "", name), ": " + reason);
    answers.append(line);
  }

  let working = false;
  async function work() {
    if (working) return;
    working = true;
    await ready;
    const unexplained = [];
    for (;;) {
      if (waiting.length) {
        const file = waiting.shift();
        show(`${file.name} is being answered` + (waiting.length ? `, ${waiting.length} more wait` : ""));
        await answer(file, unexplained);
      } else if (unexplained.length) {
        // Grad-CAM comes after all the answers
        const [number, card] = unexplained.shift();
        show("What speaks for the answers is being drawn");
        const [word] = await ask({ explain: number });
        card.querySelector(".explained").outerHTML = word.html ?? "";
      } else break;
    }
    working = false;
    show("");
  }

  async function answer(file, unexplained) {
    let bytes;
    try {
      bytes = await file.arrayBuffer();
    } catch (error) {
      return refuse(file.name, `the browser cannot read it (${error.message})`);
    }
    const number = ++sent;
    const [word] = await ask({ sheet: number, name: file.name }, [bytes]);
    if (word.refused) return refuse(file.name, word.refused);
    const card = element("div");
    card.innerHTML = word.html; // made and escaped by card.html.j2
    answers.append(card);
    unexplained.push([number, card]);
  }

  function take(files) {
    for (const file of files) {
      if (file.size > model.get("most_bytes"))
        refuse(file.name, `${megabytes(file.size)} MB, at most ${megabytes(model.get("most_bytes"))} MB are taken; save a smaller copy`);
      else waiting.push(file);
    }
    work();
  }

  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  label.addEventListener("dragover", (event) => (event.preventDefault(), label.classList.add("over")));
  label.addEventListener("dragleave", () => label.classList.remove("over"));
  label.addEventListener("drop", (event) => {
    event.preventDefault();
    label.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  const onWord = (word, buffers) => heard(word, buffers);
  model.on("msg:custom", onWord);
  const ready = ask({ hello: true }).then(([word]) => {
    if (word.refused) refuse("The model", word.refused);
    else about.innerHTML = word.html;
  });
  return () => model.off("msg:custom", onWord);
}

function element(kind, name = "", text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

const megabytes = (bytes) => Math.ceil(bytes / 2 ** 20);

export default { render };
