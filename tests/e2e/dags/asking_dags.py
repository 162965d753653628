"""Graphs that ask people, in a worker and in the triggerer."""

from airflow.sdk import DAG

from visual_ai_operators import LangGraphOperator, MultiAgentOperator

HERE = "tests.kit.graphs.asking"

for name, deferrable in (("worker", False), ("triggerer", True)):
    with DAG(f"asking_in_{name}", schedule=None):
        LangGraphOperator(
            task_id="ask",
            graph=HERE + ":{{ dag_run.conf.graph }}",
            deferrable=deferrable,
        )

with DAG("asking_team", schedule=None):
    MultiAgentOperator(
        task_id="team",
        agents=[
            {"name": "asker", "graph": f"{HERE}:editing", "input_data": {"topic": "boats"}},
            {"name": "reader", "type": "text", "input_data": {"text": "Two ships lay at anchor."}},
        ],
        synthesis=False,
    )

with DAG("asking_in_vain", schedule=None):
    LangGraphOperator(
        task_id="ask",
        graph=f"{HERE}:editing",
        input_data={"topic": "boats"},
        questions={"timeout": 3, "on_timeout": "default", "default": "Nobody's draft."},
    )

with DAG("asking_tool", schedule=None):
    LangGraphOperator(
        task_id="ask",
        agent_config={
            "type": "text",
            "model": "openai:gpt-4.1-mini",
            "tools": [{"function": "tests.kit.graphs.recorded_tools:pay", "approval": "always"}],
        },
        input_data={"text": "Ann is owed 5."},
    )
