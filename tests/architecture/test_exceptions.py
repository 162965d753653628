"""No attribute is set on an exception: what there is to say about one stands in an `AgentFailure`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("backend", "airflow") for path in (ROOT / folder).rglob("*.py"))
EXCEPTION = re.compile(r"\b\w*(Error|Exception|Failure|Exhausted|Cancelled)\b")


def exceptions_in(scope: ast.AST) -> set[str]:
    """The names that stand for exceptions: caught, annotated as such, or made by a call of an exception class."""
    found: set[str] = set()
    for node in ast.walk(scope):
        match node:
            case ast.ExceptHandler(name=str(name)):
                found.add(name)
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if EXCEPTION.search(ast.unparse(annotation)):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if EXCEPTION.search(
                ast.unparse(annotation)
            ):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=made)) if EXCEPTION.search(
                ast.unparse(made)
            ):
                found.add(name)
    return found


def attributes_set(source: str) -> Iterator[str]:
    """The statements that set an attribute of an exception."""
    tree = ast.parse(source)
    exceptions = exceptions_in(tree)
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            targets = [ast.Attribute(node.args[0], "any", ast.Store())]
        for target in targets:
            match target:
                case ast.Attribute(value=ast.Name(id=name)) if name in exceptions:
                    yield f"{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"


def test_no_attribute_is_set_on_an_exception() -> None:
    found = {str(path.relative_to(ROOT)): [*attributes_set(path.read_text())] for path in FILES}
    assert {path: statements for path, statements in found.items() if statements} == {}


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    pass\nexcept ValueError as error:\n    error.recorded = True",
        "def mark(error: BaseException) -> None:\n    error.decision: str = 'retry'",
        "failure = AirflowFailException('no')\nsetattr(failure, 'recorded', True)",
        "failure = BatchFailedError('no')\nfailure.__cause__ = None",
    ],
)
def test_such_an_attribute_is_found(source: str) -> None:
    assert len(list(attributes_set(source))) == 1
