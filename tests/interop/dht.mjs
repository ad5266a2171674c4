// Node's HyperDHT for the tests. It is started in the folder that holds node_modules, reads one
// JSON object per line and answers each with one line. Nothing else goes to standard output.
//
//   {"do": "testnet", "nodes": 10}                          → {"bootstrap": ["127.0.0.1:PORT", …]}
//   {"do": "lookup", "bootstrap": […], "topic": "<hex>"}    → {"keys": ["<hex>", …]}
//   {"do": "announce", "bootstrap": […], "topic": "<hex>", "seed": "<hex>"} → {"key": "<hex>"}
//   {"do": "record", "bootstrap": […], "key": "<hex>"}      → {"seq": 1, "value": "<hex>"} or {"seq": null}

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const require = createRequire(process.cwd() + '/')
const DHT = require('hyperdht')
const createTestnet = require('hyperdht/testnet')

const testnets = []
const nodes = []

// One node per set of bootstrap nodes: joining costs more than asking.
function node (bootstrap) {
  const name = bootstrap.join(' ')
  const known = nodes.find((node) => node.name === name)
  if (known) return known.dht
  const dht = new DHT({
    bootstrap: bootstrap.map((address) => {
      const [host, port] = address.split(':')
      return { host, port: Number(port) }
    })
  })
  nodes.push({ name, dht })
  return dht
}

const commands = {
  async testnet ({ nodes }) {
    const testnet = await createTestnet(nodes)
    testnets.push(testnet)
    return { bootstrap: testnet.bootstrap.map(({ host, port }) => `${host}:${port}`) }
  },

  async lookup ({ bootstrap, topic }) {
    const keys = new Set()
    for await (const { peers } of node(bootstrap).lookup(Buffer.from(topic, 'hex'))) {
      for (const { publicKey } of peers) keys.add(publicKey.toString('hex'))
    }
    return { keys: [...keys].sort() }
  },

  async announce ({ bootstrap, topic, seed }) {
    const keyPair = DHT.keyPair(Buffer.from(seed, 'hex'))
    await node(bootstrap).announce(Buffer.from(topic, 'hex'), keyPair, []).finished()
    return { key: keyPair.publicKey.toString('hex') }
  },

  async record ({ bootstrap, key }) {
    const found = await node(bootstrap).mutableGet(Buffer.from(key, 'hex'))
    return found ? { seq: found.seq, value: found.value.toString('hex') } : { seq: null }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const request = JSON.parse(line)
    answer = await commands[request.do](request)
  } catch (error) {
    answer = { error: String(error.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}

await Promise.all(nodes.map(({ dht }) => dht.destroy()))
await Promise.all(testnets.map((testnet) => testnet.destroy()))
