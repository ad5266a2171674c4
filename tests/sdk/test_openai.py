"""The OpenAI SDK, unchanged, against a running mesh.

Started by tests/python_sdk.rs, which sets TETHER_BASE_URL, TETHER_API_KEY,
TETHER_MODEL and TETHER_BINARY.
"""

import json
import os
import subprocess
import tempfile
import unittest
from typing import Literal

import openai
import pydantic

BASE_URL = os.environ["TETHER_BASE_URL"]
API_KEY = os.environ["TETHER_API_KEY"]
MODEL = os.environ["TETHER_MODEL"]
BINARY = os.environ["TETHER_BINARY"]
MESH = os.environ["TETHER_MESH"]
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

    def proved(self, answer, asked=ASKED, choice=0):
        with tempfile.TemporaryDirectory() as folder:
            request = os.path.join(folder, "request.json")
            with open(request, "w", encoding="utf-8") as file:
                json.dump(asked, file)
            command = [BINARY, "receipt", "verify", "-", "--json", "--request", request]
            command += ["--choice", str(choice), "--mesh", MESH]
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

    def test_each_of_several_answers_is_proved_by_its_own(self):
        asked = {**self.ASKED, "n": 2, "seed": 7}
        answer = client().chat.completions.create(**asked)
        chunks = list(client().chat.completions.create(**asked, stream=True))
        for choice in range(2):
            self.proved(answer.model_dump_json(), asked, choice)
            streamed = json.dumps([chunk.model_dump() for chunk in chunks])
            self.proved(streamed, asked, choice)

    def test_calls_and_forms_are_proved(self):
        clock = {"type": "function", "function": {"name": "clock"}}
        for more in (
            {"tools": [clock], "tool_choice": "required"},
            {"structured_outputs": {"choice": ["yes", "no"]}},
        ):
            asked = {**self.ASKED, **more, "max_tokens": 60}
            extra = {key: asked.pop(key) for key in more}
            answer = client().chat.completions.create(**asked, extra_body=extra)
            self.proved(answer.model_dump_json(), {**asked, **more})


class SeveralAnswers(unittest.TestCase):
    def test_each_is_what_its_seed_gives_and_the_prompt_is_counted_once(self):
        def draw(seed, **arguments):
            return client().chat.completions.create(
                model=MODEL,
                messages=COUNT,
                temperature=1.5,
                seed=seed,
                max_tokens=20,
                **arguments,
            )

        together = draw(40, n=3)
        self.assertEqual([choice.index for choice in together.choices], [0, 1, 2])
        alone = [draw(seed) for seed in (40, 41, 42)]
        self.assertEqual(
            [choice.message.content for choice in together.choices],
            [answer.choices[0].message.content for answer in alone],
        )
        self.assertEqual(together.usage.prompt_tokens, alone[0].usage.prompt_tokens)
        self.assertEqual(
            together.usage.completion_tokens,
            sum(answer.usage.completion_tokens for answer in alone),
        )

    def test_a_stream_has_them_side_by_side(self):
        whole_answer = whole(messages=QUESTION, n=3)
        chunks = streamed(messages=QUESTION, n=3)
        for choice in whole_answer.choices:
            pieces = [
                piece
                for chunk in chunks
                for piece in chunk.choices
                if piece.index == choice.index
            ]
            text = "".join(piece.delta.content or "" for piece in pieces)
            self.assertEqual(text, choice.message.content)
            self.assertEqual(pieces[-1].finish_reason, choice.finish_reason)
        self.assertEqual(chunks[-1].usage, whole_answer.usage)


class LogProbabilities(unittest.TestCase):
    def test_they_are_those_of_the_text(self):
        answer = whole(messages=QUESTION, logprobs=True, top_logprobs=3)
        choice = answer.choices[0]
        tokens = choice.logprobs.content
        spelled = b"".join(bytes(token.bytes) for token in tokens)
        self.assertEqual(spelled.decode(), choice.message.content)
        for token in tokens:
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top_logprobs), 3)
            likely = [top.logprob for top in token.top_logprobs]
            self.assertEqual(likely, sorted(likely, reverse=True))
            # Without chance, the most likely one is drawn.
            self.assertEqual(token.token, token.top_logprobs[0].token)
            self.assertEqual(token.logprob, likely[0])
        chunks = streamed(messages=QUESTION, logprobs=True, top_logprobs=3)
        told = [
            token
            for chunk in chunks
            for piece in chunk.choices
            if piece.logprobs is not None
            for token in piece.logprobs.content
        ]
        self.assertEqual(told, tokens)

    def test_without_asking_there_are_none(self):
        self.assertIsNone(whole(messages=QUESTION).choices[0].logprobs)


class Capital(pydantic.BaseModel):
    """What the model is made to answer."""

    city: Literal["Paris", "Rome"]
    country: Literal["France", "Italy"]
    known: bool


class Forms(unittest.TestCase):
    def test_a_schema_is_followed_and_read_by_the_sdk(self):
        answer = client().chat.completions.parse(
            model=MODEL, messages=QUESTION, response_format=Capital, temperature=0
        )
        self.assertIsInstance(answer.choices[0].message.parsed, Capital)
        self.assertIsNone(answer.choices[0].message.refusal)
        # It goes back as it came.
        message = answer.choices[0].message
        whole(messages=[*QUESTION, message, *QUESTION], max_tokens=1)

    def test_a_schema_is_followed_in_a_stream(self):
        with client().chat.completions.stream(
            model=MODEL, messages=QUESTION, response_format=Capital, temperature=0
        ) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion()
        self.assertIn("content.done", kinds)
        self.assertIsInstance(final.choices[0].message.parsed, Capital)

    def test_an_object_is_an_object(self):
        answer = whole(
            messages=QUESTION, response_format={"type": "json_object"}, max_tokens=120
        )
        text = answer.choices[0].message.content
        self.assertTrue(text.lstrip().startswith("{"), text)
        if answer.choices[0].finish_reason == "stop":
            self.assertIsInstance(json.loads(text), dict)

    def test_what_openai_has_no_words_for(self):
        def answer(**form):
            extra = {"structured_outputs": form}
            return whole(messages=QUESTION, extra_body=extra).choices[0].message.content

        self.assertIn(answer(choice=["yes", "no"]), ("yes", "no"))
        self.assertRegex(answer(regex="[A-Z][a-z]{2,5}!"), "^[A-Z][a-z]{2,5}!$")
        self.assertEqual(answer(grammar='start: "Paris" "."'), "Paris.")
        self.assertEqual(json.loads(answer(json={"const": 7})), 7)


class Weather(pydantic.BaseModel):
    """Tells the weather."""

    city: Literal["Paris", "Rome"]
    celsius: bool


class Tools(unittest.TestCase):
    WEATHER = openai.pydantic_function_tool(Weather, name="weather")
    CLOCK = {
        "type": "function",
        "function": {
            "name": "clock",
            "parameters": {
                "type": "object",
                "properties": {},
                "additionalProperties": False,
            },
        },
    }

    def check(self, choice):
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.assertIsNone(choice.message.content)
        for call in choice.message.tool_calls:
            self.assertEqual(call.type, "function")
            self.assertTrue(call.id)
            if call.function.name == "weather":
                Weather.model_validate_json(call.function.arguments)
            else:
                self.assertEqual(call.function.name, "clock")
                self.assertEqual(json.loads(call.function.arguments), {})

    def test_a_call_is_made_where_one_is_required_and_its_result_goes_back(self):
        tools = [self.WEATHER, self.CLOCK]
        answer = whole(
            messages=QUESTION,
            tools=tools,
            tool_choice="required",
            parallel_tool_calls=False,
        )
        self.check(answer.choices[0])
        message = answer.choices[0].message
        self.assertEqual(len(message.tool_calls), 1)
        result = {
            "role": "tool",
            "tool_call_id": message.tool_calls[0].id,
            "content": "Sunny.",
        }
        answer = whole(
            messages=[*QUESTION, message, result], tools=tools, max_tokens=30
        )
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.assertTrue(answer.choices[0].message.content)
        self.assertIsNone(answer.choices[0].message.tool_calls)

    def test_the_named_tool_is_called(self):
        for name in ("weather", "clock"):
            answer = whole(
                messages=QUESTION,
                tools=[self.WEATHER, self.CLOCK],
                tool_choice={"type": "function", "function": {"name": name}},
            )
            self.check(answer.choices[0])
            call = answer.choices[0].message.tool_calls[0]
            self.assertEqual(call.function.name, name)

    def test_the_sdk_puts_a_streamed_call_together(self):
        arguments = {
            "model": MODEL,
            "messages": QUESTION,
            "tools": [self.WEATHER],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "temperature": 0,
            "seed": 7,
        }
        with client().chat.completions.stream(**arguments) as stream:
            events = list(stream)
            final = stream.get_final_completion()
        self.check(final.choices[0])
        call = final.choices[0].message.tool_calls[0]
        self.assertIsInstance(call.function.parsed_arguments, Weather)
        done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
        self.assertEqual(len(done), 1)
        self.assertEqual(done[0].arguments, call.function.arguments)
        parsed = client().chat.completions.parse(**arguments)
        self.assertEqual(
            parsed.choices[0].message.tool_calls[0].function.parsed_arguments,
            call.function.parsed_arguments,
        )
        # What the SDK read goes back beside what it read it from.
        message = parsed.choices[0].message
        result = {
            "role": "tool",
            "tool_call_id": message.tool_calls[0].id,
            "content": "Sunny.",
        }
        whole(messages=[*QUESTION, message, result], max_tokens=1)

    def test_tools_that_may_not_be_called_are_not(self):
        answer = whole(
            messages=QUESTION, tools=[self.WEATHER], tool_choice="none", max_tokens=30
        )
        self.assertIsNone(answer.choices[0].message.tool_calls)
        self.assertNotEqual(answer.choices[0].finish_reason, "tool_calls")


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
        with self.assertRaises(openai.BadRequestError) as caught:
            client().chat.completions.create(
                model=MODEL, messages=QUESTION, functions=[{"name": "clock"}]
            )
        self.assertEqual(caught.exception.param, "functions")
        self.assertIn("tools", caught.exception.message)

    def test_what_an_answer_cannot_be_is_named(self):
        clock = {"type": "function", "function": {"name": "clock"}}
        no_schema = {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "nonsense"}},
        }
        cases = [
            ("n", {"n": 17}),
            ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
            ("tool_choice", {"tool_choice": "required"}),
            (
                "tools[0].function.name",
                {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            ),
            ("response_format", {"response_format": no_schema}),
            (
                "structured_outputs",
                {
                    "tools": [clock],
                    "extra_body": {"structured_outputs": {"regex": "a+"}},
                },
            ),
            # Found by whoever compiles it, and named as it was sent.
            (
                "structured_outputs",
                {"extra_body": {"structured_outputs": {"regex": "("}}},
            ),
            # Only who has the model knows how many tokens there are.
            ("logit_bias", {"logit_bias": {"99999999": 1}}),
            (
                "messages[0].tool_call_id",
                {"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]},
            ),
        ]
        for parameter, arguments in cases:
            with self.subTest(parameter=parameter, arguments=arguments):
                with self.assertRaises(openai.BadRequestError) as caught:
                    client().chat.completions.create(
                        **{"model": MODEL, "messages": QUESTION, **arguments}
                    )
                self.assertEqual(caught.exception.param, parameter)

    def test_an_empty_chat_is_refused(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().chat.completions.create(model=MODEL, messages=[])
        self.assertEqual(caught.exception.param, "messages")


if __name__ == "__main__":
    unittest.main(verbosity=2)
