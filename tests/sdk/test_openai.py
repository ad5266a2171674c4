"""The OpenAI SDK, unchanged, against a running mesh.

Started by tests/python_sdk.rs, which sets TETHER_BASE_URL, TETHER_API_KEY,
TETHER_MODEL and TETHER_BINARY.
"""

import json
import os
import subprocess
import tempfile
import unittest

import openai

BASE_URL = os.environ["TETHER_BASE_URL"]
API_KEY = os.environ["TETHER_API_KEY"]
MODEL = os.environ["TETHER_MODEL"]
BINARY = os.environ["TETHER_BINARY"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
COUNT = [{"role": "user", "content": "Count to 200."}]


def client(api_key=API_KEY):
    # No retries: an error that the SDK hides is an error that this test would miss.
    return openai.OpenAI(base_url=BASE_URL, api_key=api_key, max_retries=0, timeout=60)


def whole(**arguments):
    return client().chat.completions.create(model=MODEL, temperature=0, seed=7, **arguments)


def streamed(**arguments):
    """All chunks of a stream that asks for usage."""
    return list(
        client().chat.completions.create(
            model=MODEL,
            temperature=0,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
            **arguments,
        )
    )


def text_of(chunks):
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices
    )


def finish_of(chunks):
    reasons = [
        choice.finish_reason
        for chunk in chunks
        for choice in chunk.choices
        if choice.finish_reason is not None
    ]
    assert len(reasons) == 1, f"one finish_reason in a stream, not {reasons}"
    return reasons[0]


class Models(unittest.TestCase):
    def test_the_model_is_listed(self):
        models = client().models.list()
        self.assertEqual(models.object, "list")
        listed = {model.id: model for model in models}
        self.assertIn(MODEL, listed)
        self.assertEqual(listed[MODEL].object, "model")
        self.assertGreater(listed[MODEL].created, 0)


class ChatCompletions(unittest.TestCase):
    def test_an_answer_is_right_and_counted(self):
        answer = whole(messages=QUESTION)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(len(answer.choices), 1)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertIn("Paris", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertGreater(answer.usage.prompt_tokens, 0)
        self.assertGreater(answer.usage.completion_tokens, 0)
        self.assertEqual(
            answer.usage.total_tokens,
            answer.usage.prompt_tokens + answer.usage.completion_tokens,
        )

    def test_a_stream_is_the_same_answer_with_the_same_usage(self):
        answer = whole(messages=QUESTION)
        chunks = streamed(messages=QUESTION)
        self.assertTrue(all(chunk.object == "chat.completion.chunk" for chunk in chunks))
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertEqual(text_of(chunks), answer.choices[0].message.content)
        self.assertEqual(finish_of(chunks), "stop")
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage, answer.usage)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_usage_comes_only_where_it_was_asked_for(self):
        stream = client().chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, stream=True
        )
        chunks = list(stream)
        self.assertIn("Paris", text_of(chunks))
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_completion_tokens_are_exactly_those_that_were_allowed(self):
        for tokens in (1, 2, 7, 40):
            with self.subTest(tokens=tokens):
                answer = whole(messages=COUNT, max_tokens=tokens)
                self.assertEqual(answer.choices[0].finish_reason, "length")
                self.assertEqual(answer.usage.completion_tokens, tokens)
                chunks = streamed(messages=COUNT, max_tokens=tokens)
                self.assertEqual(finish_of(chunks), "length")
                self.assertEqual(chunks[-1].usage.completion_tokens, tokens)
                self.assertEqual(text_of(chunks), answer.choices[0].message.content)

    def test_a_longer_prompt_has_more_tokens(self):
        short = whole(messages=QUESTION, max_tokens=1)
        system = {"role": "system", "content": "Answer in one word."}
        long = whole(messages=[system, *QUESTION], max_tokens=1)
        self.assertGreater(long.usage.prompt_tokens, short.usage.prompt_tokens)

    def test_a_stop_string_ends_the_answer_and_is_not_in_it(self):
        answer = whole(messages=QUESTION, stop=["ris"])
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertNotIn("ris", answer.choices[0].message.content)

    def test_the_same_seed_gives_the_same_answer(self):
        def draw():
            return client().chat.completions.create(
                model=MODEL, messages=COUNT, temperature=1.5, seed=42, max_tokens=30
            )

        self.assertEqual(
            draw().choices[0].message.content, draw().choices[0].message.content
        )

    def test_the_worker_and_the_request_are_named(self):
        raw = client().chat.completions.with_raw_response.create(
            model=MODEL, messages=QUESTION, temperature=0
        )
        self.assertRegex(raw.headers["x-tether-worker"], "^[0-9a-f]{64}$")
        self.assertTrue(raw.headers["x-request-id"])


class Receipts(unittest.TestCase):
    """What the SDK gives is what the receipt is of. (TRU-3)"""

    ASKED = {"model": MODEL, "messages": QUESTION, "temperature": 0}

    def proved(self, answer):
        with tempfile.TemporaryDirectory() as folder:
            request = os.path.join(folder, "request.json")
            with open(request, "w", encoding="utf-8") as file:
                json.dump(self.ASKED, file)
            command = [BINARY, "receipt", "verify", "-", "--json", "--request", request]
            done = subprocess.run(command, input=answer, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual((said["request"], said["answer"]), ("matches", "matches"))

    def test_an_answer_is_proved_by_its_receipt(self):
        answer = client().chat.completions.create(**self.ASKED)
        self.assertTrue(answer.tether["receipt"])
        self.proved(answer.model_dump_json())

    def test_a_stream_is_proved_by_the_receipt_at_its_end(self):
        chunks = list(client().chat.completions.create(**self.ASKED, stream=True))
        carriers = [chunk for chunk in chunks if getattr(chunk, "tether", None)]
        self.assertEqual(len(carriers), 1)
        self.assertEqual(carriers[0].choices[0].finish_reason, "stop")
        self.proved(json.dumps([chunk.model_dump() for chunk in chunks]))


class Errors(unittest.TestCase):
    def test_a_wrong_key_is_refused(self):
        with self.assertRaises(openai.AuthenticationError) as caught:
            client(api_key="sk-wrong").models.list()
        self.assertEqual(caught.exception.status_code, 401)
        with self.assertRaises(openai.AuthenticationError):
            client(api_key="sk-wrong").chat.completions.create(
                model=MODEL, messages=QUESTION
            )

    def test_an_unknown_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            client().chat.completions.create(model="no-such-model", messages=QUESTION)
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_a_wrong_parameter_is_named(self):
        cases = {
            "temperature": {"temperature": -1},
            "top_p": {"top_p": 7},
            "max_tokens": {"max_tokens": 0},
        }
        for parameter, arguments in cases.items():
            with self.subTest(parameter=parameter):
                with self.assertRaises(openai.BadRequestError) as caught:
                    client().chat.completions.create(
                        model=MODEL, messages=QUESTION, **arguments
                    )
                self.assertEqual(caught.exception.param, parameter)
                self.assertEqual(caught.exception.type, "invalid_request_error")

    def test_what_is_not_supported_is_refused_by_name(self):
        tool = {
            "type": "function",
            "function": {"name": "clock", "parameters": {"type": "object"}},
        }
        with self.assertRaises(openai.BadRequestError) as caught:
            client().chat.completions.create(
                model=MODEL, messages=QUESTION, tools=[tool]
            )
        self.assertEqual(caught.exception.param, "tools")

    def test_an_empty_chat_is_refused(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().chat.completions.create(model=MODEL, messages=[])
        self.assertEqual(caught.exception.param, "messages")


if __name__ == "__main__":
    unittest.main(verbosity=2)
