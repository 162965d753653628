"""Runs that fail in ways that no agent can record."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG


def wait() -> None:
    time.sleep(120)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


for dag_id, function, timeout in (
    ("fails_when_killed", die, None),
    ("fails_by_hand", wait, None),
    ("fails_by_timeout", wait, timedelta(seconds=5)),
    ("fails_before_it_starts", wait, None),
):
    with DAG(dag_id, schedule=None, dagrun_timeout=timeout, is_paused_upon_creation=False):
        first = PythonOperator(task_id="work", python_callable=function)
        first >> PythonOperator(task_id="after", python_callable=wait)
