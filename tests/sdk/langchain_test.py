"""LangChain's ChatOpenAI, unchanged, on weir and on the provider alone."""

import unittest

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from support import Servers


def forecast(city: str, days: int) -> str:
    """Says how the weather will be."""
    return f"{city}: sunny for {days} days"


class LangChain(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = Servers()
        cls.addClassCleanup(cls.servers.stop)

    def on_weir(self, model, **more):
        return ChatOpenAI(base_url=self.servers.weir_url, api_key="any", model="mock/" + model, **more)

    def on_mock(self, model, **more):
        return ChatOpenAI(base_url=self.servers.mock_url, api_key="any", model=model, **more)

    def both(self, hear):
        heard = hear(self.on_weir)
        self.assertEqual(heard, hear(self.on_mock))
        return heard

    def test_text_and_usage_come_as_from_the_provider(self):
        def hear(chat):
            whole = None
            for chunk in chat("text@tokens=30", stream_usage=True).stream("hello"):
                whole = chunk if whole is None else whole + chunk
            usage = whole.usage_metadata
            return whole.content, whole.response_metadata["finish_reason"], usage["input_tokens"], usage["output_tokens"]

        _, *rest = self.both(hear)
        self.assertEqual(rest, ["stop", 1, 30])

    def test_an_invocation_is_the_same_whole(self):
        streamed = "".join(chunk.content for chunk in self.on_mock("text").stream("hello"))

        answer = self.on_weir("text").invoke("hello")

        self.assertEqual(answer.content, streamed)
        self.assertEqual(answer.usage_metadata["total_tokens"], 21)

    def test_tools_are_called_and_their_results_go_back(self):
        def hear(chat):
            whole = None
            for chunk in chat("tool_call").bind_tools([forecast]).stream("hello"):
                whole = chunk if whole is None else whole + chunk
            return whole.tool_calls

        calls = self.both(hear)
        self.assertEqual((calls[0]["name"], calls[0]["args"]), ("forecast", {"city": "Zürich", "days": 3}))

        asked = self.on_weir("tool_call").bind_tools([forecast]).invoke("hello")
        result = ToolMessage(forecast(**asked.tool_calls[0]["args"]), tool_call_id=asked.tool_calls[0]["id"])
        answer = self.on_weir("text").bind_tools([forecast]).invoke([HumanMessage("hello"), asked, result])
        self.assertTrue(answer.content.startswith("0:"))

    def test_an_error_in_the_middle_is_raised(self):
        def hear(chat):
            heard = []
            with self.assertRaises(openai.APIError):
                for chunk in chat("error_frame").stream("hello"):
                    heard.append(chunk.content)
            return "".join(heard)

        self.assertIn("2:", self.both(hear))

    def test_the_same_by_way_of_responses(self):
        chat = self.on_weir("text", use_responses_api=True)
        whole = None
        for chunk in chat.stream("hello"):
            whole = chunk if whole is None else whole + chunk

        self.assertEqual(whole.text, chat.invoke("hello").text)
        self.assertEqual(whole.usage_metadata["total_tokens"], 21)
        calls = self.on_weir("tool_call", use_responses_api=True).bind_tools([forecast]).invoke("hello").tool_calls
        self.assertEqual(calls[0]["args"], {"city": "Zürich", "days": 3})

    def test_the_provider_sees_an_abort(self):
        before = self.servers.stats()["calls_aborted"]
        stream = self.on_weir("text@tokens=100000").stream("hello")
        next(stream)

        stream.close()

        self.servers.until(lambda stats: stats["calls_aborted"] == before + 1, "no abort")


if __name__ == "__main__":
    unittest.main()
