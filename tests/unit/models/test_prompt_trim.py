"""What is cut from a prompt that no model holds, and what is kept."""

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from backend.models.prompts.document import fence, unfence
from backend.models.prompts.trim import least_tokens, trim_prompt
from backend.models.token_estimate import estimate_messages

LONG = "".join(f"Sentence number {number} of the text. " for number in range(2_000))
MARK = "characters were left out here"


def test_a_prompt_that_fits_is_unchanged() -> None:
    messages: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("hello")]
    trimmed = trim_prompt(messages, 1_000)
    assert (trimmed.messages, trimmed.left_out) == (messages, 0)


def test_the_middle_of_a_long_document_is_left_out_and_the_prompt_says_so() -> None:
    prompt = HumanMessage(f"What is it about?\n{fence(LONG)}")
    trimmed = trim_prompt([SystemMessage("Be brief."), prompt], 2_000)
    assert estimate_messages(trimmed.messages) <= 2_000
    instructions, [(_, document)] = unfence(trimmed.messages[1].text)
    assert instructions == "What is it about?"
    assert document.startswith("Sentence number 0 ")
    assert document.endswith("Sentence number 1999 of the text. ")
    assert f"[… {trimmed.left_out} {MARK}" in document
    kept = len(document) - len(document[document.index("\n[…") : document.index("…]\n") + 3])
    assert kept == len(LONG) - trimmed.left_out


def test_the_longest_documents_are_cut_first() -> None:
    short = "A short finding. " * 40
    prompt = "\n".join([fence(LONG, "a"), fence(short, "b"), fence(LONG, "c")])
    trimmed = trim_prompt([HumanMessage(prompt)], 3_000)
    assert estimate_messages(trimmed.messages) <= 3_000
    found = dict(unfence(trimmed.messages[0].text)[1])
    assert found["b"] == short
    assert MARK in found["a"]
    assert MARK in found["c"]
    assert abs(len(found["a"]) - len(found["c"])) < 10


def test_the_oldest_tool_results_are_cut_first() -> None:
    def called(number: int) -> list[BaseMessage]:
        call = {"name": "look", "args": {}, "id": str(number)}
        return [AIMessage("", tool_calls=[call]), ToolMessage(LONG, tool_call_id=str(number))]

    messages: list[BaseMessage] = [HumanMessage(LONG), *called(1), *called(2)]
    whole = estimate_messages([HumanMessage(LONG)])
    trimmed = trim_prompt(messages, 2 * whole + 1_000)
    assert trimmed.messages[0].text == LONG
    assert MARK in trimmed.messages[2].text
    assert trimmed.messages[4].text == LONG
    assert trimmed.messages[2].tool_call_id == "1"  # type: ignore[attr-defined]  # a ToolMessage still


def test_instructions_and_pictures_stay() -> None:
    picture = {"type": "image", "base64": "A" * 1_000, "mime_type": "image/png"}
    messages: list[BaseMessage] = [SystemMessage(LONG), HumanMessage([{"type": "text", "text": LONG}, picture])]
    trimmed = trim_prompt(messages, 100)
    assert trimmed.messages[0].text == LONG
    assert trimmed.messages[1].content[1] == picture
    assert MARK in trimmed.messages[1].text
    assert messages[1].text == LONG  # what was given is not changed


def test_the_fewest_tokens_of_a_prompt() -> None:
    messages: list[BaseMessage] = [HumanMessage(LONG)]
    assert least_tokens(messages) < 300 < estimate_messages(messages)
    assert least_tokens([SystemMessage(LONG)]) == estimate_messages([SystemMessage(LONG)])
