// Talks to a broker with mqtt.js: node mqttjs.cjs FOLDER-OF-NODE_MODULES URL PROTOCOL-VERSION
'use strict'

const assert = require('node:assert')
const { createRequire } = require('node:module')

const LIMIT_MS = 20000
const [folder, url, versionText] = process.argv.slice(2)
const mqtt = createRequire(`${folder}/`)('mqtt')
const protocolVersion = Number(versionText)
const base = `mqttjs/${url.split(':')[0]}/${protocolVersion}`

async function open (options = {}) {
  return mqtt.connectAsync(url, { protocolVersion, reconnectPeriod: 0, ...options })
}

function collect (client, count) {
  return new Promise((resolve, reject) => {
    const found = []
    client.on('error', reject)
    client.on('close', () => reject(new Error('the broker closed the connection')))
    client.on('message', (topic, payload, packet) => {
      found.push({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, packet })
      if (found.length === count) resolve(found)
    })
  })
}

async function everyQoS () {
  const client = await open()
  const coming = collect(client, 3)
  await client.subscribeAsync(`${base}/qos/+`, { qos: 2 })
  for (const qos of [0, 1, 2]) await client.publishAsync(`${base}/qos/${qos}`, `payload ${qos}`, { qos })
  const found = await coming
  assert.deepStrictEqual(found.map(({ qos }) => qos), [0, 1, 2])
  assert.deepStrictEqual(found.map(({ payload }) => payload), ['payload 0', 'payload 1', 'payload 2'])
  client.removeAllListeners('close')
  await client.endAsync()
}

async function retained () {
  const client = await open()
  await client.publishAsync(`${base}/retained`, 'kept', { qos: 1, retain: true })
  const coming = collect(client, 1)
  await client.subscribeAsync(`${base}/retained`, { qos: 1 })
  const [message] = await coming
  assert.strictEqual(message.payload, 'kept')
  assert.strictEqual(message.retain, true)
  await client.publishAsync(`${base}/retained`, '', { qos: 1, retain: true })
  client.removeAllListeners('close')
  await client.endAsync()
}

async function large () {
  const client = await open()
  const coming = collect(client, 1)
  await client.subscribeAsync(`${base}/large`, { qos: 1 })
  const payload = 'x'.repeat(500000)
  await client.publishAsync(`${base}/large`, payload, { qos: 1 })
  assert.strictEqual((await coming)[0].payload, payload)
  client.removeAllListeners('close')
  await client.endAsync()
}

async function properties () {
  if (protocolVersion !== 5) return
  const client = await open({ properties: { topicAliasMaximum: 5, receiveMaximum: 10 }, autoUseTopicAlias: true })
  const coming = collect(client, 2)
  await client.subscribeAsync(`${base}/properties`, { qos: 1, properties: { subscriptionIdentifier: 7 } })
  const sent = {
    contentType: 'text/plain',
    responseTopic: 're/ply',
    correlationData: Buffer.from('c0'),
    userProperties: { name: ['one', 'two'] }
  }
  // The second one goes by Topic Alias.
  for (const payload of ['a', 'b']) {
    await client.publishAsync(`${base}/properties`, payload, { qos: 1, properties: { ...sent } })
  }
  const found = await coming
  assert.deepStrictEqual(found.map(({ payload, topic }) => [topic, payload]),
    [[`${base}/properties`, 'a'], [`${base}/properties`, 'b']])
  for (const { packet } of found) {
    assert.strictEqual(packet.properties.contentType, sent.contentType)
    assert.strictEqual(packet.properties.responseTopic, sent.responseTopic)
    assert.deepStrictEqual(packet.properties.correlationData, sent.correlationData)
    assert.deepStrictEqual([...packet.properties.userProperties.name], ['one', 'two'])
    assert.strictEqual(packet.properties.subscriptionIdentifier, 7)
  }
  client.removeAllListeners('close')
  await client.endAsync()
}

async function will () {
  const watcher = await open()
  const coming = collect(watcher, 1)
  await watcher.subscribeAsync(`${base}/will`, { qos: 1 })
  const vanishing = await open({ will: { topic: `${base}/will`, payload: Buffer.from('gone'), qos: 1, retain: false } })
  vanishing.stream.destroy()
  assert.strictEqual((await coming)[0].payload, 'gone')
  watcher.removeAllListeners('close')
  await watcher.endAsync()
}

setTimeout(() => {
  console.error('not done in time')
  process.exit(1)
}, LIMIT_MS).unref()

async function main () {
  for (const part of [everyQoS, retained, large, properties, will]) {
    console.log(part.name)
    await part()
  }
}

main().then(() => {
  console.log('ok')
  process.exit(0)
}, (error) => {
  console.error(error)
  process.exit(1)
})
