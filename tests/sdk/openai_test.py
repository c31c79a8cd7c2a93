"""openai-python, unchanged, on weir and on the provider alone."""

import asyncio
import time
import unittest

import openai
from openai import AsyncOpenAI, OpenAI

from support import Servers

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "forecast", "parameters": {"type": "object", "properties": {}}}}]


class OpenaiPython(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = Servers()
        cls.addClassCleanup(cls.servers.stop)
        cls.weir = OpenAI(base_url=cls.servers.weir_url, api_key="any")
        cls.mock = OpenAI(base_url=cls.servers.mock_url, api_key="any")
        cls.addClassCleanup(cls.weir.close)
        cls.addClassCleanup(cls.mock.close)

    def both(self, hear):
        """What is heard on weir, which must be what is heard on the provider alone."""
        heard = hear(self.weir, "mock/")
        self.assertEqual(heard, hear(self.mock, ""))
        return heard

    def test_text_comes_as_from_the_provider(self):
        def hear(client, prefix):
            chunks = list(client.chat.completions.create(model=prefix + "text@tokens=40", messages=HELLO, stream=True))
            self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            return text, chunks[-1].choices[0].finish_reason, {chunk.object for chunk in chunks}

        text, finish, _ = self.both(hear)
        self.assertTrue(text.startswith("0:") and "39:" in text, text)
        self.assertEqual(finish, "stop")

    def test_usage_comes_last_when_asked_for(self):
        def hear(client, prefix):
            options = {"include_usage": True}
            stream = client.chat.completions.create(
                model=prefix + "text@tokens=5", messages=HELLO, stream=True, stream_options=options
            )
            last = list(stream)[-1]
            return last.choices, last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens

        self.assertEqual(self.both(hear), ([], 1, 5, 6))

    def test_calls_of_tools_are_put_together(self):
        def hear(client, prefix):
            with client.chat.completions.stream(model=prefix + "tool_call", messages=HELLO, tools=TOOLS) as stream:
                for _ in stream:
                    pass
                choice = stream.get_final_completion().choices[0]
            call = choice.message.tool_calls[0]
            return choice.finish_reason, call.id, call.type, call.function.name, call.function.arguments

        finish, identity, _, name, arguments = self.both(hear)
        self.assertEqual((finish, identity, name), ("tool_calls", "call_1", "forecast"))
        self.assertEqual(arguments, '{"city":"Zürich","days":3}')

    def test_reasoning_is_an_extra(self):
        def hear(client, prefix):
            stream = client.chat.completions.create(model=prefix + "reasoning", messages=HELLO, stream=True)
            deltas = [chunk.choices[0].delta for chunk in stream]
            return "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)

        self.assertTrue(self.both(hear).startswith("0:"))

    def test_without_streaming_the_same_is_whole(self):
        stream = self.mock.chat.completions.create(model="text@tokens=9", messages=HELLO, stream=True)
        expected = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        completion = self.weir.chat.completions.create(model="mock/text@tokens=9", messages=HELLO)
        tools = self.weir.chat.completions.create(model="mock/tool_call", messages=HELLO, tools=TOOLS)

        self.assertEqual(completion.choices[0].message.content, expected)
        self.assertEqual((completion.choices[0].finish_reason, completion.usage.total_tokens), ("stop", 10))
        self.assertEqual(completion._request_id, completion.id)
        self.assertEqual(tools.choices[0].message.tool_calls[0].function.name, "forecast")
        self.assertIsNone(tools.choices[0].message.content)

    def test_results_of_tools_go_back(self):
        asked = self.weir.chat.completions.create(model="mock/tool_call", messages=HELLO, tools=TOOLS)
        message = asked.choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}

        answer = self.weir.chat.completions.create(model="mock/text", messages=[*HELLO, message, result], tools=TOOLS)

        self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_a_429_before_the_stream_is_tried_again_when_it_says_so(self):
        model = "flaky@k=1,status=429,after_s=1"
        for client, name, prompt in [(self.weir, "hasty/" + model, "one"), (self.mock, model, "two")]:
            before, began = self.servers.stats()["calls_started"], time.monotonic()
            messages = [{"role": "user", "content": prompt}]

            chunks = list(client.chat.completions.create(model=name, messages=messages, stream=True))

            self.assertGreaterEqual(time.monotonic() - began, 0.95, name)
            self.assertEqual(self.servers.stats()["calls_started"] - before, 2, name)
            self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_a_429_that_no_retry_helps_against_is_not_tried_again(self):
        before = self.servers.stats()["calls_started"]

        with self.assertRaises(openai.RateLimitError) as raised:
            self.weir.chat.completions.create(model="mock/quota", messages=HELLO, stream=True)

        self.assertEqual((raised.exception.code, raised.exception.type), ("upstream_quota", "insufficient_quota"))
        self.assertEqual(self.servers.stats()["calls_started"] - before, 1)

    def test_an_error_in_the_middle_is_raised_after_what_came_before(self):
        def hear(client, prefix):
            heard = []
            stream = client.chat.completions.create(model=prefix + "error_frame", messages=HELLO, stream=True)
            with self.assertRaises(openai.APIError) as raised:
                for chunk in stream:
                    heard.append(chunk.choices[0].delta.content or "")
            self.assertTrue(raised.exception.message and raised.exception.type)
            return "".join(heard)

        self.assertIn("2:", self.both(hear))

    def test_an_answer_that_is_cut_is_an_error_and_no_end(self):
        stream = self.weir.chat.completions.create(model="mock/no_finish", messages=HELLO, stream=True)

        with self.assertRaises(openai.APIError) as raised:
            list(stream)

        self.assertEqual(raised.exception.code, "upstream_truncated")

    def test_the_provider_sees_an_abort(self):
        for client, prefix in [(self.weir, "mock/"), (self.mock, "")]:
            before = self.servers.stats()["calls_aborted"]
            stream = client.chat.completions.create(model=prefix + "text@tokens=100000", messages=HELLO, stream=True)
            next(stream)
            next(stream)

            stream.close()

            self.servers.until(lambda stats: stats["calls_aborted"] == before + 1, "no abort")
        self.servers.until(lambda stats: stats["streams_live"] == 0, "something is left")

    def test_an_abort_before_the_first_event_is_seen_too(self):
        before = self.servers.stats()["calls_aborted"]

        with self.assertRaises(openai.APITimeoutError):
            patient = self.weir.with_options(timeout=0.3, max_retries=0)
            patient.chat.completions.create(model="mock/silent", messages=HELLO, stream=True)

        self.servers.until(lambda stats: stats["calls_aborted"] == before + 1, "no abort")

    def test_errors_have_the_classes_that_clients_catch(self):
        once = self.weir.with_options(max_retries=0)
        for model, kind, code in [
            ("nobody/nothing", openai.NotFoundError, "model_not_found"),
            ("mock/not_found", openai.NotFoundError, "upstream_model_not_found"),
            ("mock/auth", openai.InternalServerError, "upstream_auth"),
            ("hasty/server_error", openai.InternalServerError, "upstream_error"),
        ]:
            with self.assertRaises(kind, msg=model) as raised:
                once.chat.completions.create(model=model, messages=HELLO)
            self.assertEqual(raised.exception.code, code)
            self.assertIsNotNone(raised.exception.request_id)
        with self.assertRaises(openai.UnprocessableEntityError) as raised:
            once.chat.completions.create(model="mock/text", messages=HELLO, n=2)
        self.assertEqual(raised.exception.param, "n")

    def test_models_are_listed_and_found(self):
        names = [model.id for model in self.weir.models.list()]

        self.assertEqual(names, ["demo/demo", "hasty/text", "mock/text"])
        self.assertEqual(self.weir.models.retrieve("mock/text").owned_by, "mock")

    def test_responses_are_put_together_from_their_events(self):
        stream = self.mock.chat.completions.create(model="text@tokens=30", messages=HELLO, stream=True)
        expected = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        with self.weir.responses.stream(model="mock/text@tokens=30", input="hello") as stream:
            heard = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            response = stream.get_final_response()
        whole = self.weir.responses.create(model="mock/text@tokens=30", input="hello")

        self.assertEqual((heard, response.output_text, whole.output_text), (expected,) * 3)
        self.assertEqual((response.status, response.usage.total_tokens), ("completed", 31))
        self.assertEqual((whole.status, whole.usage.output_tokens, whole._request_id), ("completed", 30, whole.id))

    def test_responses_call_tools_and_take_results(self):
        tools = [{"type": "function", "name": "forecast", "parameters": {"type": "object", "properties": {}}}]
        asked = {"role": "user", "content": "hello"}
        with self.weir.responses.stream(model="mock/tool_call", input=[asked], tools=tools) as stream:
            for _ in stream:
                pass
            response = stream.get_final_response()
        call = response.output[0]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}

        answer = self.weir.responses.create(
            model="mock/text", input=[asked, *(item.to_dict() for item in response.output), result], tools=tools
        )

        self.assertEqual((call.type, call.name, call.arguments), ("function_call", "forecast", '{"city":"Zürich","days":3}'))
        self.assertEqual(answer.status, "completed")

    def test_responses_reason_and_fail_in_their_own_events(self):
        kinds = [event.type for event in self.weir.responses.create(model="mock/reasoning", input="hello", stream=True)]
        self.assertLess(
            kinds.index("response.reasoning_summary_text.delta"), kinds.index("response.output_text.delta")
        )

        *_, last = self.weir.responses.create(model="mock/error_frame", input="hello", stream=True)
        self.assertEqual((last.type, last.response.status), ("response.failed", "failed"))
        self.assertEqual(last.response.error.code, "upstream_error")

        with self.assertRaises(openai.BadRequestError) as raised:
            self.weir.responses.create(model="mock/text", input="hello", previous_response_id="resp_1")
        self.assertEqual(raised.exception.param, "previous_response_id")

    def test_many_streams_at_once(self):
        async def hear():
            async with AsyncOpenAI(base_url=self.servers.weir_url, api_key="any") as client:

                async def text(number):
                    messages = [{"role": "user", "content": f"number {number}"}]
                    stream = await client.chat.completions.create(model="mock/text", messages=messages, stream=True)
                    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

                return await asyncio.gather(*(text(number) for number in range(20)))

        self.assertEqual(len(set(asyncio.run(hear()))), 20)


if __name__ == "__main__":
    unittest.main()
