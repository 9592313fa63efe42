"""node: buffers, zlib, JSON, regular expressions, worker threads and a child process."""
SECONDS = 90
SCRIPT = r"""
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const zlib = require('zlib'), crypto = require('crypto'), cp = require('child_process');
function work(seed) {
    const map = new Map(); let n = seed, hash = crypto.createHash('sha256');
    for (let i = 0; i < 100000; i++) {
        n = (n * 1103515245 + 12345) & 0x7fffffff;
        const key = 'k' + n % 5000;
        map.set(key, (map.get(key) || '') + i % 10);
    }
    for (let i = 1; i < 200; i++) {
        const b = Buffer.alloc(i * 997, 'abc' + i), z = zlib.deflateSync(b);
        if (!zlib.inflateSync(z).equals(b)) throw new Error('zlib');
        hash.update(z);
    }
    const text = JSON.stringify([...map].sort());
    hash.update(text.replace(/k(\d+)/g, '<$1>'));
    return hash.digest('hex') + ' ' + JSON.parse(text).length;
}
if (!isMainThread) { parentPort.postMessage(work(workerData)); } else {
    console.log(work(1));
    const workers = [2, 3, 4].map(seed => new Promise((done, failed) => {
        const w = new Worker(__filename, { workerData: seed });
        w.on('message', done); w.on('error', failed);
    }));
    Promise.all(workers).then(results => {
        results.forEach(line => console.log(line));
        console.log(cp.execFileSync(process.execPath, ['-p', '[1,2,3].map(x => x * 2).join()']) + '');
        require('fs').readFile(__filename, (error, data) => console.log(error, data.length));
    });
}
"""


def check(box):
    node = box.need("node", "nodejs")
    box.both_commands([[node, "script.js"]], names=["node"],
                      setup=lambda preload: box.write("script.js", SCRIPT))
