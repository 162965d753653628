"""The programs of this package: `serve` and `describe`."""

import argparse
import json
import logging
import socket
import sys
from pathlib import Path

MARK = "graphs: "
"""What the line with a description begins with; the project's own code may print, too."""


def main(arguments: list[str]) -> None:
    """Run a program in the interpreter of the project's environment, in the project's folder."""
    parser = argparse.ArgumentParser(prog="langgraph_flow_host")
    programs = parser.add_subparsers(dest="program", required=True)
    serving = programs.add_parser("serve")
    serving.add_argument("project", type=Path)
    serving.add_argument("--socket", type=int, required=True, help="the descriptor of a listening socket")
    serving.add_argument("--in-use", type=Path, required=True, help="a folder that must not be removed meanwhile")
    serving.add_argument("--idle", type=float, default=600.0)
    serving.add_argument("--shared", action="store_true")
    serving.add_argument("--sdk-retries", action="store_true")
    serving.add_argument("--no-stream-usage", action="store_true")
    describing = programs.add_parser("describe")
    describing.add_argument("project", type=Path)
    describing.add_argument("--configured", type=json.loads, default={})
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    if given.program == "describe":
        from langgraph_flow_host.describe import describe

        sys.stdout.write(f"\n{MARK}{json.dumps(describe(given.project, given.configured))}\n")
        return

    from langgraph_flow_host.openai_defaults import change
    from langgraph_flow_host.serving import Host

    change(sdk_retries=given.sdk_retries, stream_usage=not given.no_stream_usage)
    listener = socket.socket(fileno=given.socket)
    Host(listener, given.project, in_use=given.in_use, idle=given.idle, shared=given.shared).run()
