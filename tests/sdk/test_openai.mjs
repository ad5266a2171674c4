// The OpenAI SDK for Node, unchanged, against a running mesh.
//
// Started by tests/node_sdk.rs in the folder that holds node_modules, which sets TETHER_BASE_URL,
// TETHER_API_KEY and TETHER_MODEL.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'

const require = createRequire(process.cwd() + '/')
const OpenAI = require('openai')
const { zodFunction, zodResponseFormat } = require('openai/helpers/zod')
const { z } = require('zod')

const model = process.env.TETHER_MODEL
const messages = [{ role: 'user', content: 'What is the capital of France?' }]
// No retries: an error that the SDK hides is an error that this test would miss.
const client = new OpenAI({
  baseURL: process.env.TETHER_BASE_URL,
  apiKey: process.env.TETHER_API_KEY,
  maxRetries: 0,
  timeout: 60_000
})
const chat = client.chat.completions
const plain = { model, messages, temperature: 0, seed: 7 }

const City = z.enum(['Paris', 'Rome'])
const Weather = z.object({ city: City, celsius: z.boolean() })
const weather = zodFunction({ name: 'weather', parameters: Weather })
const calling = { ...plain, tools: [weather], tool_choice: 'required', parallel_tool_calls: false }

test('a stream is the same answer with the same usage', async () => {
  const whole = await chat.create(plain)
  assert.match(whole.choices[0].message.content, /Paris/)
  const stream = chat.stream({ ...plain, stream_options: { include_usage: true } })
  const final = await stream.finalChatCompletion()
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content)
  assert.deepEqual(final.usage, whole.usage)
})

test('a schema is followed and read by the SDK', async () => {
  const Capital = z.object({ city: City, known: z.boolean() })
  const answer = await chat.parse({
    ...plain,
    response_format: zodResponseFormat(Capital, 'capital')
  })
  assert.deepEqual(Capital.parse(answer.choices[0].message.parsed), answer.choices[0].message.parsed)
  const back = { ...plain, max_tokens: 1, messages: [...messages, answer.choices[0].message, ...messages] }
  await chat.create(back)
})

test('a call is made where one is required and its result goes back', async () => {
  const answer = await chat.parse(calling)
  const { finish_reason: finish, message } = answer.choices[0]
  assert.equal(finish, 'tool_calls')
  assert.equal(message.content, null)
  const [call] = message.tool_calls
  assert.equal(call.function.name, 'weather')
  Weather.parse(call.function.parsed_arguments)
  const result = { role: 'tool', tool_call_id: call.id, content: 'Sunny.' }
  const next = await chat.create({ ...plain, messages: [...messages, message, result], max_tokens: 20 })
  assert.ok(next.choices[0].message.content)
})

test('the SDK puts a streamed call together', async () => {
  const done = []
  const stream = chat.stream(calling)
  stream.on('tool_calls.function.arguments.done', (event) => done.push(event))
  const final = await stream.finalChatCompletion()
  assert.equal(final.choices[0].finish_reason, 'tool_calls')
  const [call] = final.choices[0].message.tool_calls
  assert.ok(call.id)
  assert.equal(done.length, 1)
  assert.equal(done[0].arguments, call.function.arguments)
  Weather.parse(JSON.parse(call.function.arguments))
})

test('several answers and how likely their tokens were', async () => {
  const answer = await chat.create({ ...plain, n: 3, logprobs: true, top_logprobs: 2 })
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2])
  for (const choice of answer.choices) {
    const bytes = choice.logprobs.content.flatMap((token) => token.bytes)
    assert.equal(Buffer.from(bytes).toString(), choice.message.content)
    assert.ok(choice.logprobs.content.every((token) => token.top_logprobs.length === 2))
  }
  const final = await chat.stream({ ...plain, n: 3 }).finalChatCompletion()
  const texts = (completion) => completion.choices.map((choice) => choice.message.content)
  assert.deepEqual(texts(final), texts(answer))
})

test('what is not supported is refused by name', async () => {
  const refused = (body) => assert.rejects(chat.create({ ...plain, ...body }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError)
    assert.equal(error.param, Object.keys(body)[0])
    return true
  })
  await refused({ functions: [{ name: 'clock' }] })
  await refused({ n: 17 })
  await refused({ top_logprobs: 3 })
})
