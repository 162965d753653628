"""A graph for each of two topics, in instances of one mapped task."""

from airflow.sdk import DAG

from visual_ai_operators import LangGraphOperator

with DAG("forked_mapped", schedule=None):
    LangGraphOperator.partial(task_id="work", graph="five_steps").expand(
        input_data=[{"topic": "ebb"}, {"topic": "flood"}]
    )
