# ruff: noqa: INP001 - a script beside what it makes
"""Write those parts of the documentation that the code itself knows.

    python docs/generate.py           write them
    python docs/generate.py --check   say which are out of date

Whole pages: ``tables.md``, ``cli.md``. Parts of pages, between ``<!-- generated: NAME -->`` and ``<!-- end -->``: the
keys of ``configuration.md``, the script format of ``gateway.md``, the routes of ``web-api.md``, the variables that
override.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

#: What keys mean whose models leave it to their neighbours.
_MEANINGS = {
    ("agent", "cols"): "pane width in characters; the cluster's when omitted",
    ("agent", "rows"): "pane height in lines; the cluster's when omitted",
    ("chat", "temperature"): "sampling temperature, 0 to 2; the endpoint's default when omitted",
    ("stop", "text"): "a line that is typed to end it, such as `exit()`",
    ("stop", "key"): "a tmux key that is pressed to end it; `C-d` when neither is given",
    ("stop", "timeout_s"): "seconds until it is ended by a signal",
}


# tables -------------------------------------------------------------------------------------------

_TABLES_HEAD = """# Tables and events

<!-- Made by docs/generate.py from orchestrator_lab/schema.py. Do not edit. -->

Schema version {version}. Every function `NAME_df(source)` gives the table NAME with exactly these columns, in this
order, with these dtypes, also when there are no rows. A source is a `Run`, a live `Cluster`, the path of a run's
folder or of a folder of runs, a glob, or a list of those; or a path of
[conversations that the lab did not start](agents.md#conversations-that-the-lab-did-not-start).

`columns=` chooses columns, `agents=` rows of some agents, `since=` those behind a `seq` or from an instant on, `where=`
those with some values: `messages_df(run, agents="boss", since="2026-01-31T12:00Z", where={{"status": "answered"}})`.
A run that is [sealed](operations/runbook.md#large-runs) reads no more than that.

Unknown is NA and never an estimate. Instants end in `_at` and are UTC; durations end in `_s` and come from a clock
that never jumps; `run_id` is in every table, and `seq` orders the rows of a run. *OTel* is the attribute of the
OpenTelemetry GenAI conventions with the same meaning; it is no column.

`cost_usd` comes from the [prices](configuration.md#prices) that you set or ask for, and is NA without one. `mode` is
[how models answered](replay.md), and NA for conversations that the lab did not start.

Tables: {contents}. [Keys and joins](#keys-and-joins). [Events](#events-of-the-journal).
"""

_JOINS = """## Keys and joins

| table | a row is known by | columns that mean a row of another table |
|---|---|---|
{rows}

Ids are unique in a run; with several runs join by `run_id` too, as below. `sender` is `user` for people and programs
outside, who have no row. An agent that is removed and added again has two rows of one name: the newest counts here. A
text that is typed while a turn runs belongs to the turn, too: `message_ids` of `turns` is the list.

The blocks below run one after the other.

```python
import pandas as pd

from orchestrator_lab import Cluster, open_run
from orchestrator_lab.frames import agents_df, messages_df, states_df, tool_calls_df, turns_df

config = {{
    "cluster": {{"name": "joins", "gateway": {{"script": [{{"reply": "{{agent}} has read: {{text}}"}}]}}}},
    "agents": [{{"name": "ada", "kind": "chat"}}, {{"name": "bob", "kind": "chat"}}],
}}
with Cluster.start(config) as cluster:
    cluster.converse(["ada", "bob"], "What is a run?", rounds=1).wait(timeout=60)
run = open_run(cluster.run.path)
messages, turns, calls = messages_df(run), turns_df(run), tool_calls_df(run)
```

**Message, turn, tool calls.** A row for each tool call of the turn that answers a message, and one for a message whose
turn called none; `validate=` says what is expected.

```python
answered = messages.merge(turns, on=["run_id", "turn_id"], how="left", suffixes=("", "_turn"), validate="many_to_one")
used = answered.merge(calls, on=["run_id", "turn_id"], how="left", suffixes=("", "_call"), validate="many_to_many")
print(used[["sender", "recipient", "content", "output_tokens", "name"]])
```

```text
  sender recipient                       content  output_tokens  name
0   user       ada                What is a run?              7  <NA>
1    ada       bob  ada has read: What is a run?             11  <NA>
```

**What the pane showed then.** `run.screen` takes the id of a message, a turn, a tool call or a dialog;
[`run.story`](reading.md#the-story-of-one-message) puts all of it together.

```python
last = used.iloc[-1]
print(run.screen(last["agent"], last["turn_id"]))
print(run.story(last["message_id"]))
```

**Messages with what their sender and their recipient are.**

```python
agents = agents_df(run, columns=["run_id", "name", "kind", "role", "model"]).drop_duplicates(
    ["run_id", "name"], keep="last"
)
routed = messages.merge(
    agents.add_suffix("_sender"), how="left", left_on=["run_id", "sender"], right_on=["run_id_sender", "name_sender"]
)
routed = routed.merge(
    agents.add_suffix("_recipient"),
    how="left",
    left_on=["run_id", "recipient"],
    right_on=["run_id_recipient", "name_recipient"],
)
print(routed[["sender", "kind_sender", "recipient", "kind_recipient", "status"]])
```

```text
  sender kind_sender recipient kind_recipient    status
0   user        <NA>       ada           chat  answered
1    ada        chat       bob           chat  answered
```

**States at an instant**, for one instant, and for the one at which each message was queued: the last state that began
before, unless it had ended by then.

```python
states = states_df(run).sort_values("started_at")
at = messages["accepted_at"].max()
print(states[(states["started_at"] <= at) & ~(states["ended_at"] <= at)][["agent", "state", "source"]])

then = pd.merge_asof(
    messages.dropna(subset="queued_at").sort_values("queued_at"),
    states[["run_id", "agent", "state", "started_at", "ended_at"]].add_suffix("_state"),
    left_on="queued_at",
    right_on="started_at_state",
    left_by=["run_id", "recipient"],
    right_by=["run_id_state", "agent_state"],
)
then["state_state"] = then["state_state"].mask(then["ended_at_state"] <= then["queued_at"])
print(then[["recipient", "queued_at", "state_state", "queue_s"]])
```
"""

_EVENTS_HEAD = """## Events of the journal

The journal of a run is `journal.jsonl`: one JSON object a line, only ever appended to. Each has the same envelope;
keys that are null are left out.

| key | meaning |
|---|---|
| `seq` | number of the event in its run, from 1 |
| `event` | name, as below |
| `at` | wall-clock instant, UTC |
| `monotonic_s` | seconds since the start of the run |
| `agent` | the agent concerned; of a message, its recipient |
| `message_id`, `turn_id` | the message and the turn concerned |
| `source` | where the fact comes from: `hook`, `transcript`, `terminal`, `screen`, `echo`, `process`, … |
| `level` | `debug`, `info`, `warning`, `error` or `critical` |
| `attributes` | everything else, by the names below |

Readers pass events that they do not know through to the events table.

| event | meaning | attributes |
|---|---|---|"""


def _key_row(table: str) -> str:
    from orchestrator_lab.schema import KEYS, REFERENCES

    known_by = ", ".join(f"`{name}`" for name in KEYS[table])
    meant = [f"`{one.column}` → `{one.to_table}.{one.to_column}`" for one in REFERENCES if one.table == table]
    return f"| `{table}` | {known_by} | {', '.join(meant)} |"


def tables_page() -> str:
    """Return ``tables.md``."""
    from orchestrator_lab.schema import EVENTS, SCHEMA_VERSION, TABLES

    contents = ", ".join(f"[{name}](#{name})" for name in TABLES)
    lines = [_TABLES_HEAD.format(version=SCHEMA_VERSION, contents=contents)]
    for name, columns in TABLES.items():
        lines += [f"## {name}", "", "| column | dtype | unit | meaning | OTel |", "|---|---|---|---|---|"]
        for column in columns:
            meaning = column.meaning
            if column.categories:
                meaning += " One of " + ", ".join(f"`{one}`" for one in column.categories) + "."
            otel = f"`{column.otel}`" if column.otel else ""
            lines.append(f"| `{column.name}` | {column.dtype} | {column.unit or ''} | {meaning} | {otel} |")
        lines.append("")
    lines.append(_JOINS.format(rows="\n".join(map(_key_row, TABLES))))
    lines.append(_EVENTS_HEAD)
    for event in EVENTS.values():
        names = ", ".join(f"`{name}`" for name in event.attributes)
        lines.append(f"| `{event.name}` | {event.meaning} | {names} |")
    return "\n".join(lines) + "\n"


# configuration ------------------------------------------------------------------------------------


def _kind(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a JSON schema's type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return _NAMED.get(name) or _kind(definitions[name], definitions)
    if "anyOf" in schema:
        parts = [_kind(part, definitions) for part in schema["anyOf"] if part.get("type") != "null"]
        if "text" in parts:  # the short form first
            parts = ["text", *parts]
        return " or ".join(dict.fromkeys(part for part in parts if part))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}), definitions)}"
    inner = schema.get("additionalProperties")
    if kind == "object" and isinstance(inner, dict) and inner.get("$ref"):
        return f"mapping of text to {_kind(inner, definitions)}"
    low, high = schema.get("minimum"), schema.get("maximum")
    words = {"string": "text", "boolean": "true, false", "object": "mapping", "any": "any"}
    text = words.get(kind, kind)
    if schema.get("format") == "path":
        text = "path"
    return f"{text}, {low} to {high}" if low is not None and high is not None else text


_SAID = {"description", "default"}
_NAMED = {
    "GatewayConfig": "[gateway](#gateway)",
    "TurnEnd": "[turn end](#turn-ends-of-programs)",
    "Stop": "[stop](#stop)",
    "RestartPolicy": "[restart](#restarts)",
    "HangPolicy": "[hang](#agents-that-make-no-progress)",
    "DialogPolicy": "[dialogs](#dialogs)",
    "Limits": "[limits](#limits)",
    "AlertsConfig": "[alerts](#alerts)",
    "PrivacyConfig": "[privacy](#privacy)",
    "InitialStateConfig": "[initial state](#initial-state)",
    "ModelPrice": "[price](#prices)",
    "Thresholds": "[three figures](#alerts)",
    "TopologyEdge": "[edge](#topology)",
    "Agent": "[agent](#keys-of-every-agent)",
}


def _default(name: str, schema: dict[str, Any], required: set[str]) -> str:
    if name in required:
        return "**required**"
    value = schema.get("default")
    if value is None or value in ("", [], {}) or isinstance(value, dict):
        return ""
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return f"`{shown}`"


def _keys(group: str, definition: dict[str, Any], definitions: dict[str, Any], names: list[str]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    required = set(definition.get("required", []))
    for name in names:
        schema = definition["properties"][name]
        if "anyOf" in schema and "description" not in schema:  # a short form was put beside the full one
            schema = {**{key: value for key, value in schema["anyOf"][0].items() if key in _SAID}, **schema}
        meaning = schema.get("description") or _MEANINGS.get((group, name))
        if not meaning:
            raise SystemExit(f"configuration: nothing says what {group}.{name} means")
        # A list is shown by a word more than its type where a shorthand is allowed.
        kind = _kind(schema, definitions).replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {_default(name, schema, required)} | {meaning} |")
    return "\n".join(lines)


def configuration_parts() -> dict[str, str]:
    """Return the generated parts of ``configuration.md``: every key of the JSON schema."""
    from orchestrator_lab.config import KINDS, AgentConfig, Backups, ClusterOverrides, Retention, Settings, json_schema

    schema = json_schema()
    definitions = schema["$defs"]
    cluster = schema["properties"]["cluster"]
    agents = {kind: definitions[f"{kind.capitalize()}Agent"] for kind in KINDS}
    shared = [name for name in AgentConfig.model_fields if name not in {"kind", "permission_mode"}]
    common = {"properties": agents["chat"]["properties"], "required": ["name"]}
    parts = {
        "cluster": _keys("cluster", cluster, definitions, list(cluster["properties"])),
        "agent": _keys("agent", common, definitions, shared),
    }
    for kind, definition in agents.items():
        own = [name for name in definition["properties"] if name not in {*shared, "kind"}]
        # Kinds without modes of their own refuse the key.
        if "enum" not in json.dumps(definition["properties"]["permission_mode"]):
            own.remove("permission_mode")
        parts[kind] = _keys(kind, definition, definitions, own)
    gateway = definitions["GatewayConfig"]["anyOf"][0]
    edge = definitions["TopologyEdge"]["anyOf"][1]
    stop = definitions["Stop"]["anyOf"][1]
    for name, definition in (
        ("gateway", gateway),
        ("edge", edge),
        ("turn_end", definitions["TurnEnd"]),
        ("stop", stop),
        ("restart", definitions["RestartPolicy"]["anyOf"][1]),
        ("hang", definitions["HangPolicy"]),
        ("dialogs", definitions["DialogPolicy"]["anyOf"][1]),
        ("limits", definitions["Limits"]),
        ("prices", definitions["ModelPrice"]),
        ("alerts", definitions["AlertsConfig"]),
        ("privacy", definitions["PrivacyConfig"]),
        ("initial_state", definitions["InitialStateConfig"]["anyOf"][1]),
    ):
        parts[name] = _keys(name, definition, definitions, list(definition["properties"]))
    variables = [
        str(field.validation_alias or f"ORCHESTRATOR_{name.upper()}")
        for name, field in Settings.model_fields.items()
        if name not in {"backup", "cluster", "retention"}
    ]
    variables += [f"ORCHESTRATOR_RETENTION__{name.upper()}" for name in Retention.model_fields]
    variables += [f"ORCHESTRATOR_BACKUP__{name.upper()}" for name in Backups.model_fields]
    nested = [f"ORCHESTRATOR_CLUSTER__{name.upper()}" for name in ClusterOverrides.model_fields]
    parts["variables"] = "\n".join(f"- `{name}`" for name in [*variables, *nested])
    return parts


# the script format --------------------------------------------------------------------------------


def gateway_parts() -> dict[str, str]:
    """Return the generated part of ``gateway.md``: the tables in the docstring of ``gateway/rules.py``."""
    from orchestrator_lab.gateway import rules

    found: list[str] = []
    rows: list[list[str]] = []
    width = 0
    borders = 0
    for line in (rules.__doc__ or "").splitlines():
        if re.fullmatch(r"=+  =+", line):
            width, borders = line.index(" "), borders + 1
            if borders == 3:
                head, *rest = rows
                found.append(_markdown(head, rest))
                rows, borders = [], 0
        elif borders and line.strip():
            cut = line.index(" ", width) if line[width : width + 1].strip() else width
            key, text = line[:cut].strip(), line[cut:].strip()
            if key:
                rows.append([key, text])
            else:
                rows[-1][1] += f" {text}"
    return {"script": "\n\n".join(found)}


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines).replace("``", "`")


# the command line ---------------------------------------------------------------------------------

_CLI_HEAD = """# The command line

<!-- Made by docs/generate.py from the commands' own help. Do not edit. -->

`orchestrator-lab`, or `python -m orchestrator_lab`, or `python -m orchestrator_lab.cli`. Commands that name no cluster
mean the one of this folder's `cluster.yaml`, or the only one that runs. `--json` prints what a program reads. An error
is one sentence on stderr and status 1; a wrong use is status 2.
"""


def commands() -> dict[str, Any]:
    """Return every command of the command line by its words, such as ``runs show``."""
    import typer

    from orchestrator_lab.cli.app import app

    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:  # noqa: ANN401 - click's
        if words:
            found[" ".join(words)] = command
        for name, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                walk(inner, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def cli_page() -> str:
    """Return ``cli.md``."""
    lines = [_CLI_HEAD]
    for name, command in commands().items():
        lines += [f"## orchestrator-lab {name}", "", (command.help or "").strip(), "", "```text"]
        lines.append(f"orchestrator-lab {name} {_usage(command)}".rstrip())
        lines += ["```", ""]
        options = [one for one in command.params if getattr(one, "help", None) and not getattr(one, "hidden", False)]
        if options:
            lines += ["| argument or option | meaning |", "|---|---|"]
            for one in options:
                shown = (
                    ", ".join(f"`{opt}`" for opt in one.opts) if one.param_type_name == "option" else f"`{one.name}`"
                )
                lines.append(f"| {shown} | {' '.join(one.help.split()).replace('|', chr(92) + '|')} |")
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _usage(command: Any) -> str:  # noqa: ANN401 - click's
    import click

    pieces = command.collect_usage_pieces(click.Context(command))
    return " ".join(pieces)


# the web API --------------------------------------------------------------------------------------


def web_parts() -> dict[str, str]:
    """Return the parts of ``web-api.md``."""
    from orchestrator_lab.server.routes import ROUTES

    lines = ["| method | route | query | body | what |", "|---|---|---|---|---|"]
    for route in ROUTES:
        query, body = (
            ", ".join(f"`{name}`" for name in model.model_fields) if model is not None else ""
            for model in (route.query, route.body)
        )
        lines.append(f"| {route.method} | `{route.path}` | {query} | {body} | {route.summary} |")
    return {"routes": "\n".join(lines)}


# files --------------------------------------------------------------------------------------------


def fill(text: str, parts: dict[str, str]) -> str:
    """Return a page with its generated parts renewed."""
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"the page has no place <!-- generated: {name} -->")
        before, _, rest = text.partition(pattern.search(text)[0])  # type: ignore[index]  # it was found just above
        text = f"{before}<!-- generated: {name} -->\n\n{part}\n\n<!-- end -->{rest}"
    return text


def pages() -> dict[Path, str]:
    """Return every page that is made here, as it should be."""
    made = {HERE / "tables.md": tables_page(), HERE / "cli.md": cli_page()}
    filled = {"configuration.md": configuration_parts(), "gateway.md": gateway_parts(), "web-api.md": web_parts()}
    for name, parts in filled.items():
        made[HERE / name] = fill((HERE / name).read_text(encoding="utf-8"), parts)
    return made


def main(argv: list[str] | None = None) -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 when a page is out of date")
    check = parser.parse_args(argv).check
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.write_text(pages()[path], encoding="utf-8")
        sys.stdout.write(f"{'out of date' if check else 'written'}: {path.name}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
