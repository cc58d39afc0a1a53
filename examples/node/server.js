// A web service that makes thumbnails of uploaded pictures, decoded in sandboxed processes by one `arenite`.
//
//   node examples/node/server.js 8000
//   curl --data-binary @samples/coffee.png http://127.0.0.1:8000/ -o thumbnail.jpg
//
// An upload that crashes the decoder, hangs it or asks for too much memory is answered with an error.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { pipeline } = require('node:stream/promises');

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'thumbnails-'));
const flags = ['--jobs', '-', '--size', '224', '--format', 'jpeg', '--timeout', '20s', '--retries', '1'];
const arenite = spawn('arenite', ['resize', ...flags], { stdio: ['pipe', 'pipe', 'inherit'] });
const waiting = new Map();
let uploads = 0;

readline.createInterface({ input: arenite.stdout }).on('line', (line) => {
  const answer = JSON.parse(line);
  waiting.get(answer.id)(answer);
  waiting.delete(answer.id);
});

function resize(job) {
  return new Promise((resolve) => {
    waiting.set(job.id, resolve);
    arenite.stdin.write(JSON.stringify(job) + '\n');
  });
}

const server = http.createServer(async (request, response) => {
  const id = ++uploads;
  const job = { id, in: path.join(folder, `${id}.in`), out: path.join(folder, `${id}.jpg`) };
  try {
    await pipeline(request, fs.createWriteStream(job.in));
    const { status, cause, error } = await resize(job);
    if (status === 'written') response.writeHead(200, { 'Content-Type': 'image/jpeg' }).end(fs.readFileSync(job.out));
    else response.writeHead(422, { 'Content-Type': 'text/plain' }).end(`${cause}: ${error}\n`);
  } catch (error) {
    response.destroy(error); // The client has gone, or the disk is full.
  } finally {
    for (const file of [job.in, job.out]) fs.rmSync(file, { force: true });
  }
});

server.listen(Number(process.argv[2] ?? 8000), '127.0.0.1', () => console.log(server.address().port));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
process.on('SIGTERM', () => process.exit()); // Ends `arenite` too: its stdin ends.
arenite.on('error', (error) => { console.error(`arenite: ${error.message}`); process.exit(1); });
arenite.on('exit', (code) => process.exit(code ?? 1));
