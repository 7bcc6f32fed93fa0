"""Record the run that ``02_analysing_conversations.ipynb`` reads: five real Claude Codes build a small command.

    python notebooks/record_five_agents.py FOLDER [--claude PATH] [--keep]

A boss, a manager and three specialists (the template ``boss-manager-specialists``) work in a git repository under
FOLDER, which must be new. A script answers for the model, so no key and no login is needed; everything else is real:
the programs, the tools that they call, the files that they write, the tests that fail, the questions that they ask.

Programs say where they work: choose a FOLDER whose path tells nothing of you. With ``--keep`` the run replaces the
recorded one of this repository, unless a word that names this machine or its user is found in it. Transcripts and
sessions, which resume a run and which no table needs, are not kept, and of the platform only system and architecture.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml
import zstandard

from orchestrator_lab import Cluster
from orchestrator_lab.config import dated_prices, template_files
from orchestrator_lab.errors import DialogNotAnswered

ROOT = Path(__file__).resolve().parents[1]
CLAUDE = ROOT / "tests" / "agents" / "node_modules" / ".bin" / "claude"
RECORDED = ROOT / "notebooks" / "recorded" / "five-agents"
#: What of a run is kept.
PARTS = ("manifest.json", "config.yaml", "journal.jsonl", "instructions", "panes", "changes", "logs")
#: Bytes that the recorded run may have at most.
LARGEST = 400_000
#: What Claude Code believes that it talks to; the script is priced as if it were that.
MODEL = "claude-sonnet-4-5"
#: Seconds until an answer of the model begins, and how fast it comes then.
DELAY_S, TOKENS_PER_S = 0.6, 60.0
#: Seconds that the person at the keyboard takes to read a question.
READING_S = 1.5

TASK = "Write a command that counts the words of a file, with tests."
STAND_UP = "Stand-up: what did you do, in one sentence?"

NOTES = """\
A cluster is a named set of agents under one supervisor.
Each agent is one interactive program in one pane.

Every message climbs a ladder, and each rung has its evidence.
"""
FIRST_TRY = '''\
"""Count the words of a file: python3 wordcount.py FILE."""

import sys


def count(text: str) -> int:
    return len(text.split(" "))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(count(file.read()))
'''
TESTS = """\
import unittest

from wordcount import count


class Words(unittest.TestCase):
    def test_a_sentence(self):
        self.assertEqual(count("one two three"), 3)

    def test_nothing(self):
        self.assertEqual(count(""), 0)

    def test_lines_and_many_spaces(self):
        self.assertEqual(count("one\\n\\ntwo   three"), 3)
"""


def script(work: Path) -> list[dict[str, Any]]:
    """Return what the model says: rules of the gateway.

    Parameters
    ----------
    work : Path
        Where the agents work.

    Returns
    -------
    list of dict
        Rules; see ``docs/gateway.md``.
    """
    program, tests = str(work / "wordcount.py"), str(work / "test_wordcount.py")

    def bash(command: str, description: str) -> dict[str, Any]:
        return {"name": "Bash", "input": {"command": command, "description": description}}

    def write(path: str, content: str) -> dict[str, Any]:
        return {"name": "Write", "input": {"file_path": path, "content": content}}

    def tell(to: str, text: str, *, answers: bool = True) -> dict[str, Any]:
        words = {"to": to, "text": text} | ({"in_reply_to": "{message_id}"} if answers else {})
        return {"name": "mcp__orchestrator-lab__send_message", "input": words}

    def steps(*done: dict[str, Any] | list[dict[str, Any]], say: str, first: str = "") -> dict[str, Any]:
        """One tool after the other, then the last words."""
        pace = {"delay_s": DELAY_S, "tokens_per_s": TOKENS_PER_S}
        answer: dict[str, Any] = {"reply": say, **pace}
        for tool in reversed(done):
            answer = {"tool": tool, "then": answer, **pace}
        return answer | ({"reply": first} if first else {})

    def rule(agent: str, contains: str, answer: dict[str, Any]) -> dict[str, Any]:
        return {"name": f"{agent}: {contains}", "when": {"agent": agent, "contains": contains}, **answer}

    did = {
        "boss": "I set the goal and read the command before I accepted it.",
        "manager": "I split the goal into three orders and sent one fault back.",
        "coder": "I wrote wordcount.py and repaired how it splits text.",
        "researcher": "I looked up what counts as a word, and measured notes.txt.",
        "tester": "I wrote three tests; two of them failed at first, now all pass.",
    }
    unittest_, run_it = "python3 -m unittest -q", "python3 wordcount.py notes.txt"
    return [
        *(rule(agent, "Stand-up", {"reply": text, "tokens_per_s": TOKENS_PER_S}) for agent, text in did.items()),
        rule("boss", TASK, steps(
            tell("manager", "Goal: a command wordcount.py that prints how many words a file has.\n"
                 "Criteria: same figure as wc -w; an empty file has 0; tests exist and pass.\nOut of scope: options.",
                 answers=False),
            first="The goal is clear: one command, checked against wc -w.", say="The manager has the goal.")),
        rule("boss", "Report", steps(
            {"name": "Read", "input": {"file_path": program}},
            say="Done: wordcount.py counts the words of a file as wc -w does. Three tests pass; I have read the "
            "command myself. Nothing is open.")),
        rule("manager", "Goal", steps(
            [
                tell("coder", "Write wordcount.py: count(text) and a command that prints the count of a file.\n"
                     "Try it with notes.txt.", answers=False),
                tell("researcher", "What counts as a word for wc -w, and how many has notes.txt? Name your source.",
                     answers=False),
                tell("tester", "Write test_wordcount.py for count(text): a sentence, nothing, line ends and many "
                     "spaces. Do not run it yet.", answers=False),
            ],
            first="Three orders that do not wait for each other.", say="Three orders are out.")),
        rule("manager", "Finding", steps(say="Noted: 31 words is the figure to meet.")),
        rule("manager", "tests are written", steps(say="Noted: they run once the command is there.")),
        rule("manager", "is written", steps(
            tell("tester", "wordcount.py is there: run your tests against it.", answers=False),
            say="The tester has it.")),
        rule("manager", "2 faults", steps(
            tell("coder", "The tester reports 2 faults: count('') gives 1, and line ends do not part words. "
                 "Repair the cause.", answers=False),
            say="The faults went back to the coder.")),
        rule("manager", "The cause", steps(
            tell("tester", "Repaired: run your tests again.", answers=False), say="Once more to the tester.")),
        rule("manager", "Passed", steps(
            tell("boss", "Report: wordcount.py and test_wordcount.py exist. The first version counted blanks instead "
                 "of words; repaired, 3 tests pass, notes.txt has 31 words as wc -w says. Nothing is open.",
                 answers=False),
            say="The boss has the report.")),
        rule("coder", "Write wordcount.py", steps(
            write(program, FIRST_TRY), bash(run_it, "Try the command"),
            tell("manager", "wordcount.py is written. I ran it on notes.txt, it printed {tool_result}."),
            say="The command is written and was run once.")),
        rule("coder", "2 faults", steps(
            {"name": "Edit", "input": {"file_path": program, "old_string": 'text.split(" ")',
                                       "new_string": "text.split()"}},
            bash(run_it, "Try it again"),
            tell("manager", "The cause was split(' '): it parts at single blanks only. Repaired; notes.txt has "
                 "{tool_result} words now."),
            say="Repaired at its cause.")),
        rule("researcher", "What counts", steps(
            bash("curl -s https://www.gnu.org/software/coreutils/manual/", "Fetch the manual of wc"),
            bash("wc -w notes.txt", "Count with the reference"),
            tell("manager", "Finding (certain): a word is whatever stands between white space; wc -w says "
                 "{tool_result}. I was not allowed to fetch the manual, so the source is the command itself."),
            first="The manual first, then the measurement.", say="Answered, with its source.")),
        rule("tester", "Write test_wordcount.py", steps(
            write(tests, TESTS), tell("manager", "The tests are written: three, in test_wordcount.py. Not yet run."),
            say="Three tests wait for the command.")),
        rule("tester", "run your tests against", steps(
            bash(unittest_, "Run the tests"),
            tell("coder", "Your count('') gives 1.", answers=False),
            tell("manager", "2 faults.\n1. count('') gives 1, should be 0.\n2. 'one\\n\\ntwo   three' gives 4, "
                 "should be 3.\nFine: a plain sentence."),
            say="2 faults, both reproduced.")),
        rule("tester", "again", steps(
            bash(unittest_, "Run the tests again"),
            tell("manager", "Passed: 3 tests, also with an empty text and with many blanks."),
            say="Passed.")),
    ]  # fmt: skip


def config(folder: Path) -> dict[str, Any]:
    """Write the template's files, and return its configuration with what this run adds.

    Parameters
    ----------
    folder : Path
        Where everything of the run lies.

    Returns
    -------
    dict
        For :meth:`orchestrator_lab.Cluster.start`.
    """
    work = folder / "company"
    files = template_files("boss-manager-specialists")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    chosen: dict[str, Any] = yaml.safe_load(files["cluster.yaml"])
    chosen["cluster"] |= {
        "work_dir": str(work),
        "runs_dir": str(folder / "runs"),
        "lifetime": "owner",
        "cols": 96,
        "rows": 28,
        "start_timeout_s": 120,
        "prices": {"script": dated_prices()[MODEL].model_dump(mode="json", exclude_none=True)},
        "gateway": {"mode": "script", "script": script(work)},
        "dialogs": {"allow": ["Bash(python3 wordcount.py *)"], "deny": ["Bash(curl *)"]},
    }
    for agent in chosen["agents"]:
        agent["model"] = MODEL
        agent["instructions_file"] = str(folder / agent["instructions_file"])
        if agent["name"] in {"coder", "tester"}:
            agent["permission_mode"] = "acceptEdits"
    return chosen


def begin(work: Path) -> None:
    """Make the repository in which the agents work."""
    work.mkdir()
    (work / "notes.txt").write_text(NOTES, encoding="utf-8")
    (work / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    who = ("-c", "user.name=lab", "-c", "user.email=", "-c", "commit.gpgsign=false")
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "Notes"]):
        subprocess.run(["git", "-C", str(work), *arguments], check=True)  # noqa: S607 - git as the user has it


def attend(cluster: Cluster, over: threading.Event) -> None:
    """Allow what is asked, as a person would who reads it first."""
    while not over.wait(0.2):
        for dialog in cluster.dialogs:
            if dialog.options and not over.wait(READING_S):
                try:
                    dialog.answer("allow")
                except DialogNotAnswered as error:
                    sys.stdout.write(f"{error}\n")


def record(folder: Path, claude: Path) -> Path:
    """Record a run.

    Parameters
    ----------
    folder : Path
        A new folder for all of it.
    claude : Path
        Claude Code.

    Returns
    -------
    Path
        The run's folder.
    """
    folder.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "claude").symlink_to(claude.resolve())
    begin(folder / "company")
    # Neither the way to Claude Code nor the folder of sockets shall tell whose machine this is.
    os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    os.environ["ORCHESTRATOR_RUNTIME_DIR"] = str(folder / "r")
    os.chdir(folder)
    sys.argv[0] = Path(sys.argv[0]).name
    over = threading.Event()
    with Cluster.start(
        config(folder), experiment="five agents", params={"task": "word count"}, tags=["recorded"], seed=1
    ) as cluster:
        person = threading.Thread(target=attend, args=(cluster, over))
        person.start()
        try:
            cluster["boss"].ask(TASK, timeout=120)
            cluster.wait(timeout=300)
            for exchange in cluster.broadcast(STAND_UP):
                exchange.result(timeout=120)
            cluster.wait(timeout=60)
        finally:
            over.set()
            person.join()
        return cluster.run_dir


def private_words() -> list[str]:
    """Return what names this machine or its user."""
    words = {str(Path.home()), str(ROOT), os.environ.get("SSH_CONNECTION", "").split(" ")[0]}
    words |= {word for word in (getpass.getuser(), socket.gethostname(), socket.getfqdn()) if word != "root"}
    return sorted(word for word in words if word)


def told(run: Path, words: list[str]) -> list[str]:
    """Return where a recorded run says something that it must not say.

    Parameters
    ----------
    run : Path
        Its folder.
    words : list of str
        What it must not say, beside keys and addresses of mail.

    Returns
    -------
    list of str
        File, and what was found in it.
    """
    plain = [rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])" for word in words]
    patterns = [*plain, r"sk-ant-[\w-]{8,}", r"[\w.+-]+@[\w-]+\.[A-Za-z]{2,}", r"/(?:home|Users)/\w+", r"/root\b"]
    expression = re.compile("|".join(patterns).encode())
    found = []
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).readall()
        found += [
            f"{path.relative_to(run)}: {match[0].decode(errors='replace')}" for match in expression.finditer(data)
        ]
    return found


def keep(run: Path) -> None:
    """Put a run in the place of the recorded one, if it may be shown to everyone."""
    kept = run.with_name("kept")
    kept.mkdir()
    for name in PARTS:
        copy = shutil.copytree if (run / name).is_dir() else shutil.copyfile
        copy(run / name, kept / name)
    manifest = json.loads((kept / "manifest.json").read_text(encoding="utf-8"))
    manifest["platform"] = f"{platform.system()}-{platform.machine()}"
    (kept / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    if found := told(kept, private_words()):
        sys.exit("the run tells more than it should; nothing was kept:\n  " + "\n  ".join(sorted(set(found))[:20]))
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    if size > LARGEST:
        sys.exit(f"the run has {size:,} bytes, more than {LARGEST:,}; nothing was kept")
    shutil.rmtree(RECORDED, ignore_errors=True)
    shutil.copytree(kept, RECORDED)
    sys.stdout.write(f"{RECORDED.relative_to(ROOT)}: {size:,} bytes\n")


def main(argv: list[str] | None = None) -> None:
    """Record a run, and keep it when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a new folder whose path tells nothing of you")
    parser.add_argument("--claude", type=Path, default=CLAUDE, help="Claude Code; that of the tests by default")
    parser.add_argument("--keep", action="store_true", help="replace the recorded run of this repository")
    chosen = parser.parse_args(argv)
    folder = chosen.folder.resolve()
    if folder.exists():
        parser.error(f"{folder} exists already: name a folder that does not")
    if not chosen.claude.exists():
        parser.error(
            f"there is no Claude Code at {chosen.claude}: run 'npm ci' in tests/agents, or name it by --claude"
        )
    run = record(folder, chosen.claude)
    sys.stdout.write(f"recorded {run}\n")
    if chosen.keep:
        keep(run)


if __name__ == "__main__":
    main()
