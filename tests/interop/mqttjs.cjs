// Talks to a broker with mqtt.js: node mqttjs.cjs FOLDER-OF-NODE_MODULES URL PROTOCOL-VERSION PART
'use strict'

const assert = require('node:assert')
const crypto = require('node:crypto')
const { createRequire } = require('node:module')

const LIMIT_MS = 20000
// Close below the broker's default `mqtt.max_packet_size`, which is 1 MiB.
const LARGE = 1024 * 1024 - 256
const [folder, url, versionText, part] = process.argv.slice(2)
const mqtt = createRequire(`${folder}/`)('mqtt')
const protocolVersion = Number(versionText)
const base = `mqttjs/${url.split(':')[0]}/${protocolVersion}`

async function open (options = {}) {
  const protocolId = protocolVersion === 3 ? 'MQIsdp' : 'MQTT'
  return mqtt.connectAsync(url, { protocolVersion, protocolId, reconnectPeriod: 0, ...options })
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
  const coming = collect(client, 3)
  await client.subscribeAsync(`${base}/large`, { qos: 2 })
  const payloads = ['a', 'b', 'c'].map((letter) => letter.repeat(LARGE))
  for (const qos of [0, 1, 2]) await client.publishAsync(`${base}/large`, payloads[qos], { qos })
  const found = (await coming).map(({ payload }) => payload)
  assert.ok(found.every((payload, index) => payload === payloads[index]), 'another payload')
  client.removeAllListeners('close')
  await client.endAsync()
}

async function properties () {
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

async function shared () {
  const members = [await open(), await open()]
  const coming = members.map((member) => collect(member, 5))
  for (const member of members) await member.subscribeAsync(`$share/group/${base}/shared`, { qos: 1 })
  const publisher = await open()
  for (let number = 0; number < 10; number++) await publisher.publishAsync(`${base}/shared`, `${number}`, { qos: 1 })
  const found = (await Promise.all(coming)).flat().map(({ payload }) => Number(payload))
  assert.deepStrictEqual(found.sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  for (const client of [...members, publisher]) {
    client.removeAllListeners('close')
    await client.endAsync()
  }
}

async function session () {
  const lasting = {
    clientId: `mqttjs-${url.split(':')[0]}-${protocolVersion}`,
    clean: false,
    ...(protocolVersion === 5 ? { properties: { sessionExpiryInterval: 600 } } : {})
  }
  const first = await open(lasting)
  await first.subscribeAsync(`${base}/session/+`, { qos: 2 })
  await first.endAsync()
  const other = await open()
  const sent = Array.from({ length: 40 }, (_, number) => `${number}`)
  for (const [number, payload] of sent.entries()) {
    await other.publishAsync(`${base}/session/${number % 3}`, payload, { qos: 1 + number % 2 })
  }
  // Handlers first: what waits comes right behind CONNACK.
  const again = mqtt.connect(url, {
    protocolVersion, protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT', reconnectPeriod: 0, ...lasting
  })
  const connected = new Promise((resolve) => again.on('connect', resolve))
  const coming = collect(again, sent.length)
  // CONNACK of 3.1 has no Session Present.
  if (protocolVersion !== 3) assert.strictEqual((await connected).sessionPresent, true)
  // In order, for each QoS: this client passes a message of QoS 2 on at its PUBREL, behind later ones of QoS 1.
  const found = await coming
  for (const qos of [1, 2]) {
    const payloads = found.filter((message) => message.qos === qos).map(({ payload }) => payload)
    assert.deepStrictEqual(payloads, sent.filter((_, number) => 1 + number % 2 === qos))
  }
  for (const client of [again, other]) {
    client.removeAllListeners('close')
    await client.endAsync()
  }
}

// RFC 5802, as a client has to do it.
function scram (user, password, done) {
  const hmac = (key, text) => crypto.createHmac('sha256', key).update(text).digest()
  const nonce = crypto.randomBytes(18).toString('base64')
  const bare = `n=${user},r=${nonce}`
  return {
    first: Buffer.from(`n,,${bare}`),
    last (challenge) {
      const [, theirs, salt, count] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(challenge)
      assert.ok(theirs.startsWith(nonce))
      const salted = crypto.pbkdf2Sync(password, Buffer.from(salt, 'base64'), Number(count), 32, 'sha256')
      const key = hmac(salted, 'Client Key')
      const withoutProof = `c=biws,r=${theirs}`
      const message = `${bare},${challenge},${withoutProof}`
      const signature = hmac(crypto.createHash('sha256').update(key).digest(), message)
      done(`v=${hmac(hmac(salted, 'Server Key'), message).toString('base64')}`)
      return Buffer.from(`${withoutProof},p=${key.map((byte, index) => byte ^ signature[index]).toString('base64')}`)
    }
  }
}

async function enhanced () {
  const authenticationMethod = 'SCRAM-SHA-256'
  let verdict
  const mine = scram('scram-user', 'scram-password', (text) => { verdict = text })
  const client = mqtt.connect(url, {
    protocolVersion,
    reconnectPeriod: 0,
    clientId: `enhanced-${base}`,
    properties: { authenticationMethod, authenticationData: mine.first }
  })
  client.handleAuth = (packet, callback) => {
    const authenticationData = mine.last(packet.properties.authenticationData.toString())
    callback(null, { cmd: 'auth', reasonCode: 0x18, properties: { authenticationMethod, authenticationData } })
  }
  const connack = await new Promise((resolve, reject) => client.on('connect', resolve).on('error', reject))
  assert.strictEqual(connack.properties.authenticationMethod, authenticationMethod)
  assert.strictEqual(connack.properties.authenticationData.toString(), verdict)
  const coming = collect(client, 1)
  await client.subscribeAsync(`${base}/enhanced`, { qos: 1 })
  await client.publishAsync(`${base}/enhanced`, 'proved', { qos: 1 })
  assert.strictEqual((await coming)[0].payload, 'proved')
  client.removeAllListeners('close')
  await client.endAsync()
}

setTimeout(() => {
  console.error('not done in time')
  process.exit(1)
}, LIMIT_MS).unref()

const parts = { qos: everyQoS, retained, will, shared, session, large, properties, enhanced }

parts[part]().then(() => {
  console.log('ok')
  process.exit(0)
}, (error) => {
  console.error(error)
  process.exit(1)
})
