// Photos in: chosen, dropped, pasted, taken, or an example.
import { make, part } from './dom.js';
import { sent } from './remake.js';
import { Strip } from './strip.js';

export function intake(root, page) {
  const file = part(root, 'file');
  page.strip = new Strip(root, page, send);
  part(root, 'upload').addEventListener('click', () => file.click());
  file.addEventListener('change', () => {
    take(page, [...file.files]);
    file.value = '';
  });
  watchDrop(root, page);
  watchPaste(root, page);
  camera(root, page);
  const examples = page.examples.map((name) =>
    make(
      'button',
      { type: 'button', class: 'ld-example', 'data-example': name, on: { click: () => page.analyse({ example: name }) } },
      make('img', { src: `lite/examples/${name}.jpg`, alt: '', loading: 'lazy' }),
      make('span', { 'data-text': `example.${name}` }),
    ),
  );
  part(root, 'examples').replaceChildren(...examples);
}

function take(page, files) {
  const photos = files.filter(({ type }) => type.startsWith('image/'));
  if (photos.length > 1) page.strip.open(photos);
  else if (files.length) send(page, photos[0] ?? files[0]);
}

async function send(page, file) {
  if (file.type && !file.type.startsWith('image/')) {
    page.fail(page.say('error.not_picture'));
    return;
  }
  const ticket = page.nextTicket();
  page.busy(page.say('status.sending'));
  try {
    const job = await sent(page, file);
    if (ticket === page.ticket) page.analyse(job); // else something else was begun meanwhile
  } catch {
    if (ticket === page.ticket) page.fail(page.say('error.upload'));
  }
}

function watchDrop(root, page) {
  const curtain = part(root, 'drop');
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
  let depth = 0;
  root.addEventListener('dragenter', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth += 1;
    curtain.hidden = false;
  });
  root.addEventListener('dragover', (event) => { if (carries(event)) event.preventDefault(); });
  root.addEventListener('dragleave', () => {
    depth = Math.max(depth - 1, 0);
    if (!depth) curtain.hidden = true;
  });
  root.addEventListener('drop', (event) => {
    depth = 0;
    curtain.hidden = true;
    if (!carries(event)) return;
    event.preventDefault();
    take(page, [...event.dataTransfer.files]);
  });
}

function watchPaste(root, page) {
  document.addEventListener('paste', (event) => {
    const item = [...(event.clipboardData?.items ?? [])].find((entry) => entry.type.startsWith('image/'));
    if (!item || !root.isConnected) return;
    event.preventDefault();
    send(page, item.getAsFile());
  });
  part(root, 'paste').addEventListener('click', async () => {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith('image/'));
        if (type) {
          const blob = await item.getType(type);
          send(page, new File([blob], `pasted.${type.split('/')[1]}`, { type }));
          return;
        }
      }
    } catch { /* not allowed, or not known to this browser: the sentence below says what to do */ }
    page.fail(page.say('error.clipboard'));
  });
}

function camera(root, page) {
  const dialog = part(root, 'camera');
  const video = part(root, 'video');
  const stop = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  part(root, 'webcam').addEventListener('click', async () => {
    try {
      if (!navigator.mediaDevices?.getUserMedia) throw new Error('https');
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: 'environment' } });
      dialog.showModal();
    } catch (error) {
      page.fail(page.say('error.camera', { reason: error.message }));
    }
  });
  part(root, 'take').addEventListener('click', () => {
    const canvas = make('canvas', { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext('2d').drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      dialog.close();
      if (blob) send(page, new File([blob], 'webcam.jpg', { type: 'image/jpeg' }));
    }, 'image/jpeg', 0.92);
  });
  part(root, 'camera-close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', stop);
}
