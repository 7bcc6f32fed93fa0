"""The chat program in a real pane, with a real endpoint and a real hook receiver."""

# ruff: noqa: ANN001, ANN201, ANN202
from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chat_helpers import Receiver, wait_for

SHAPES = {
    "one line": "hello there",
    "japanese": "日本語のテキスト、絵文字🙂👩‍👩‍👧‍👦 と合成 é が",
    "semicolon": "ends with ;",
    "escaped semicolon": "ends with \\;",
    "backslash": "ends with \\",
    "quotes": "'a' \"b\" $(date) `id` ${HOME} %d {x}",
    "tabs": "\tone\t\ttwo\t",
    "slash": "/not a command",
    "command": "/exit",
    "help": "/help",
    "bang": "!ls",
    "hash": "# title",
    "at": "@file",
    "spaces": "  leading and trailing  ",
    "blank lines": "a\n\n\nb\n",
    "200 lines": "\n".join(f"line {i} ; \\ 日本 '" for i in range(200)),
    "100 kB": "0123456789 日本語\n" * 4000,
    "100 kB in one line": "x y" * 34000,
    "marker": "[pasted 3 lines #1] is only text",
    "private": "private \U00100000 and \U0010fffd characters",
    "1 MB": "a line of some sixty characters, so that it is like a text 日\n" * 16000,
}


def test_every_shape_is_accepted_to_the_byte(chat):
    chat.start()
    pane, receiver = chat.pane, chat.receiver
    for number, (name, text) in enumerate(SHAPES.items(), 1):
        pane.paste(text)
        event = receiver.wait("UserPromptSubmit", number)
        assert event["prompt"] == text, name
        stop = receiver.wait("Stop", number)
        assert stop["last_assistant_message"] == f"echo: {text[:40]}"
        asked = chat.endpoint.requests[-1][2]["messages"]
        assert asked[-1] == {"role": "user", "content": text}
        assert len(asked) == 2 * number - 1
    users = [r["message"]["content"] for r in chat.records() if r["type"] == "user"]
    assert users == list(SHAPES.values())
    assert not pane.dead()


def test_a_turn_is_reported_in_order_with_what_the_endpoint_said(chat):
    def pieces():
        for i in range(60):
            if i in {1, 30}:  # what was said by then is told before the rest is there
                wait_for(lambda i=i: len(chat.receiver.of("MessageDisplay")) >= (1 if i == 1 else 2))
            yield f"piece{i} "

    chat.endpoint.reply = lambda _: pieces()
    chat.endpoint.pause = 0.015
    chat.start()
    began = time.monotonic()
    chat.pane.paste("go")
    stop = chat.receiver.wait("Stop")
    took = time.monotonic() - began
    chat.pane.keys("C-d")
    chat.receiver.wait("SessionEnd")
    names = chat.receiver.names()
    displays = chat.receiver.of("MessageDisplay")
    assert names == ["SessionStart", "UserPromptSubmit", *["MessageDisplay"] * len(displays), "Stop", "SessionEnd"]
    assert "".join(event["delta"] for event in displays) == stop["last_assistant_message"]
    assert 3 <= len(displays) <= 2 + took / 0.25  # no more than four a second, the first one, the last one
    assert stop["usage"] == {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 42}
    assert stop["model"] == "tiny-1"
    assert stop["duration_ms"] >= 800
    assert stop["session_id"] == "s-1"
    assert set(chat.receiver.tokens) == {"Bearer tok-1"}
    assert chat.receiver.of("SessionEnd")[0]["reason"] == "prompt_input_exit"
    user, assistant = chat.records()
    assert user["uuid"] == stop["prompt_id"] == assistant["promptId"]
    assert assistant["message"]["usage"] == stop["usage"]
    assert chat.transcript.stat().st_mode & 0o777 == 0o600
    wait_for(chat.pane.dead)


def test_openai_endpoint(chat, short_folder):
    (short_folder / "role.md").write_text("You are kind.\n")
    chat.start(
        api="openai", key_env="MY_KEY", env={"MY_KEY": "sk-1"}, temperature=0.5,
        system_file=str(short_folder / "role.md"),
    )  # fmt: skip
    chat.pane.paste("hi")
    stop = chat.receiver.wait("Stop")
    path, headers, body = chat.endpoint.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer sk-1"
    assert body["messages"][0] == {"role": "system", "content": "You are kind.\n"}
    assert body["temperature"] == 0.5
    assert stop["usage"] == {"input_tokens": 6, "output_tokens": 5, "cache_read_input_tokens": 4}
    chat.pane.wait_screen("echo: hi")


def test_no_key_reaches_an_endpoint_that_was_not_given_one(chat):
    chat.start(env={"ANTHROPIC_API_KEY": "sk-secret", "OPENAI_API_KEY": "sk-secret"})
    chat.pane.paste("hi")
    chat.receiver.wait("Stop")
    assert "sk-secret" not in str(chat.endpoint.requests)


def test_interrupt_keeps_what_came_and_sends_no_stop(chat):
    chat.endpoint.reply = lambda _: [f"word{i} " for i in range(10_000)]
    chat.endpoint.pause = 0.02
    chat.start()
    chat.pane.paste("tell me")
    chat.receiver.wait("MessageDisplay", 2)
    chat.pane.keys("C-c")
    failure = chat.receiver.wait("StopFailure")
    assert failure["error"] == "interrupted"
    assert failure["last_assistant_message"].startswith("word0 word1")
    assert "".join(e["delta"] for e in chat.receiver.of("MessageDisplay")) == failure["last_assistant_message"]
    chat.pane.wait_screen("· interrupted")
    chat.endpoint.reply, chat.endpoint.pause = (lambda _: "fine"), 0
    chat.pane.paste("next")
    assert chat.receiver.wait("Stop")["last_assistant_message"] == "fine"
    assert [m["role"] for m in chat.endpoint.requests[-1][2]["messages"]] == ["user", "assistant", "user"]
    assert len(chat.receiver.of("Stop")) == 1


def test_interrupt_before_the_first_byte(chat):
    chat.endpoint.reply = lambda _: None
    chat.start()
    chat.pane.paste("tell me")
    assert chat.endpoint.arrived.wait(30)
    chat.pane.keys("C-c")
    assert chat.receiver.wait("StopFailure")["error"] == "interrupted"
    assert chat.endpoint.left.wait(30)  # it hung up: it was not only given up


def test_ctrl_c_clears_a_draft_and_ctrl_d_needs_an_empty_line(chat):
    chat.start()
    chat.pane.paste("draft", enter=False)
    chat.pane.wait_screen("› draft")
    chat.pane.keys("C-d")
    time.sleep(0.2)
    assert not chat.pane.dead()
    chat.pane.keys("C-c")
    chat.pane.wait_screen("Write a message")
    chat.pane.keys("C-d")
    wait_for(chat.pane.dead)
    assert chat.receiver.names() == ["SessionStart", "SessionEnd"]


def test_messages_while_it_answers_are_queued_in_order(chat):
    seen = threading.Event()

    def pieces(prompt):
        for i in range(25):
            yield f"{prompt}-{i} "
            seen.wait(60)

    chat.endpoint.reply = pieces
    chat.start()
    for text in ("one", "two", "three\nlines", "four"):
        chat.pane.paste(text)
    chat.pane.paste("draft", enter=False)
    chat.pane.wait_screen("queued two")
    chat.pane.wait_screen("queued three (+1 lines)")
    chat.receiver.wait("Notification", 3)
    seen.set()
    chat.receiver.wait("Stop", 4)
    prompts = [e["prompt"] for e in chat.receiver.of("UserPromptSubmit")]
    assert prompts == ["one", "two", "three\nlines", "four"]
    turns = [n for n in chat.receiver.names() if n in {"UserPromptSubmit", "Stop"}]
    assert turns == ["UserPromptSubmit", "Stop"] * 4
    chat.pane.wait_screen("› draft")
    assert [e["prompt"] for e in chat.receiver.of("Notification")] == ["two", "three\nlines", "four"]


def test_hooks_wait_for_a_receiver_that_is_down(chat):
    probe = socket.socket()  # nobody listens, and nobody else can
    probe.bind(("127.0.0.1", 0))
    chat.start(wait=False, hook_url=f"http://127.0.0.1:{probe.getsockname()[1]}/h")
    chat.pane.wait_screen("Write a message")
    chat.pane.paste("while you were away")
    chat.pane.wait_screen("echo: while")
    chat.pane.paste("draft", enter=False)  # typing is not held up
    chat.pane.wait_screen("› draft")
    time.sleep(3)
    with Receiver(probe) as late:
        late.wait("Stop")
        assert late.names() == ["SessionStart", "UserPromptSubmit", "MessageDisplay", "Stop"]


def test_a_listener_that_nobody_serves_yet_gets_every_event_once_it_does(chat):
    """The keeper holds the socket while the supervisor restarts: connections wait in the backlog."""
    receiver = Receiver()
    try:
        chat.start(wait=False, hook_url=receiver.url)
        chat.pane.wait_screen("Write a message")
        chat.pane.paste("hi")
        chat.pane.wait_screen("echo: hi")
        time.sleep(1)
        with receiver:
            receiver.wait("Stop")
            assert receiver.names() == ["SessionStart", "UserPromptSubmit", "MessageDisplay", "Stop"]
    finally:
        receiver.server_close()


@pytest.mark.parametrize(
    ("reply", "said", "kind"),
    [
        ((400, {}, '{"error": {"message": "prompt is too long"}}'), "HTTP 400: prompt is too long", "invalid_request"),
        ((500, {}, "oops \x1b]0;evil\x07"), "HTTP 500: oops", "server_error"),
        ((401, {}, '{"error": {"message": "bad key"}}'), "HTTP 401: bad key", "authentication_failed"),
        ((302, {"Location": "http://elsewhere/"}, ""), "redirects", "invalid_request"),
        ((429, {"Retry-After": "900"}, "{}"), "HTTP 429", "rate_limit"),
    ],
)  # fmt: skip
def test_api_errors(chat, reply, said, kind):
    chat.endpoint.reply = lambda _: reply
    chat.start()
    chat.pane.paste("hi")
    failure = chat.receiver.wait("StopFailure")
    assert said in failure["error"]
    assert failure["error_type"] == kind
    chat.pane.wait_screen(said)
    chat.pane.wait_screen("Write a message")
    assert not chat.receiver.of("Stop")
    # The failed prompt is not sent again.
    chat.endpoint.reply = lambda _: "well"
    chat.pane.paste("again")
    chat.receiver.wait("Stop")
    assert len(chat.endpoint.requests[-1][2]["messages"]) == 1


def test_no_endpoint(chat):
    chat.start(base_url="http://127.0.0.1:9")
    chat.pane.paste("hi")
    failure = chat.receiver.wait("StopFailure")
    assert "no connection to http://127.0.0.1:9: connection refused" in failure["error"]


def test_429_is_tried_again_with_a_note(chat):
    answers = [(429, {"Retry-After": "0.3"}, "{}"), (429, {"Retry-After": "0.2"}, "{}"), "there"]
    chat.endpoint.reply = lambda _: answers.pop(0)
    chat.start()
    chat.pane.paste("hi")
    assert chat.receiver.wait("Stop")["last_assistant_message"] == "there"
    chat.pane.wait_screen("again in 0.3 s (1 of 3)")
    assert len(chat.endpoint.requests) == 3
    assert len(chat.receiver.of("UserPromptSubmit")) == 1


def test_controls_in_a_reply_never_reach_the_terminal(chat):
    evil = "a\x1b[2J\x1b]0;evil\x07b\x9b31m\x1b[?2004l\rc \x1b]52;c;aGk=\x07\ttab\n日本語 end"
    chat.endpoint.reply = lambda _: list(evil)
    chat.start()
    chat.pane.paste("hi")
    assert chat.receiver.wait("Stop")["last_assistant_message"] == evil
    chat.pane.wait_screen("a␛[2J␛]0;evil␇b")
    assert "evil" not in chat.pane.tmux("display-message", "-p", "#{pane_title}")
    chat.pane.paste("two\nlines")
    assert chat.receiver.wait("UserPromptSubmit", 2)["prompt"] == "two\nlines"


def test_only_so_many_turns_are_remembered(chat):
    chat.start(remember_turns=1)
    for count, prompt in enumerate(("one", "two", "three"), 1):
        chat.pane.paste(prompt)
        wait_for(lambda count=count: len(chat.receiver.of("Stop")) == count)
    sent = [[message["content"] for message in body["messages"]] for _, _, body in chat.endpoint.requests]
    assert sent == [["one"], ["one", "echo: one", "two"], ["two", "echo: two", "three"]]
    assert [one["message"]["content"] for one in chat.records() if one["type"] == "user"] == ["one", "two", "three"]


def test_resume_continues_the_conversation(chat):
    chat.start()
    chat.pane.paste("remember 7")
    chat.receiver.wait("Stop")
    chat.pane.keys("C-d")
    chat.receiver.wait("SessionEnd")
    with chat.transcript.open("a") as file:
        file.write('{"type": "user", "torn')
    chat.start(resume=True)
    wait_for(lambda: len(chat.receiver.of("SessionStart")) == 2)
    assert chat.receiver.of("SessionStart")[1]["source"] == "resume"
    chat.pane.wait_screen("continued: 1 earlier exchange")
    chat.pane.paste("what was it?")
    chat.receiver.wait("Stop", 2)
    contents = [m["content"] for m in chat.endpoint.requests[-1][2]["messages"]]
    assert contents == ["remember 7", "echo: remember 7", "what was it?"]


def test_typed_commands(chat):
    chat.start()
    chat.pane.keys("-l", "/help")
    chat.pane.enter()
    chat.pane.wait_screen("interrupt the answer, or clear the line")
    chat.pane.keys("-l", "/model")
    chat.pane.enter()
    chat.pane.wait_screen("the model is tiny")
    chat.pane.paste("hi")
    chat.receiver.wait("Stop")
    chat.pane.keys("-l", "/clear")
    chat.pane.enter()
    chat.pane.wait_screen("forgotten")
    chat.pane.paste("hi again")
    chat.receiver.wait("Stop", 2)
    assert len(chat.endpoint.requests[-1][2]["messages"]) == 1
    chat.pane.keys("-l", "/exit now")  # not exactly a command: text
    chat.pane.enter()
    assert chat.receiver.wait("UserPromptSubmit", 3)["prompt"] == "/exit now"
    chat.receiver.wait("Stop", 3)
    chat.pane.keys("-l", "/exit")
    chat.pane.enter()
    wait_for(chat.pane.dead)


def test_editing_new_lines_history_and_empty_submits(chat):
    chat.start()
    chat.pane.enter()
    chat.pane.paste("   ")
    chat.pane.keys("-l", "first")
    chat.pane.keys("C-j")
    chat.pane.keys("-l", "second")
    chat.pane.keys("M-Enter")
    chat.pane.keys("-l", "third")
    chat.pane.paste(" pasted ;")
    assert chat.receiver.wait("UserPromptSubmit")["prompt"] == "first\nsecond\nthird pasted ;"
    chat.receiver.wait("Stop")
    big = "\n".join(map(str, range(500)))
    chat.pane.keys("-l", "see ")
    chat.pane.paste(big, enter=False)
    chat.pane.wait_screen("› see [pasted 500 lines #1]")
    chat.pane.keys("-l", " thanks")
    chat.pane.enter()
    assert chat.receiver.wait("UserPromptSubmit", 2)["prompt"] == f"see {big} thanks"
    chat.receiver.wait("Stop", 2)
    chat.pane.keys("Up")
    chat.pane.wait_screen("› see [pasted 500 lines #1] thanks")
    chat.pane.keys("BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace")
    chat.pane.enter()
    assert chat.receiver.wait("UserPromptSubmit", 3)["prompt"] == "see "


def test_paste_and_enter_in_one_read(chat):
    chat.start()
    chat.pane.paste(b"\x1b[200~body\rtwo\x1b[201~\r\x1b[200~next\x1b[201~\r", enter=False, bracketed=False)
    chat.receiver.wait("Stop", 2)
    prompts = [e["prompt"] for e in chat.receiver.of("UserPromptSubmit")]
    assert prompts == ["body\ntwo", "next"]
    chat.pane.paste(b"\x1b[200~break\x1b[201~out\x1b[201~\r", enter=False, bracketed=False)
    chat.receiver.wait("UserPromptSubmit", 3)
    assert not chat.pane.dead()


@pytest.mark.parametrize(("cols", "rows", "term"), [(80, 24, "screen"), (200, 50, "tmux-256color")])
def test_sizes_terms_and_resize(chat, cols, rows, term):
    chat.start(cols=cols, rows=rows, env={"TERM": term, "NO_COLOR": "1"})
    chat.endpoint.reply = lambda _: [f"{i} 日本語のテキスト🙂 " for i in range(60)]
    chat.endpoint.pause = 0.01
    chat.pane.paste("go " * 100)
    chat.receiver.wait("MessageDisplay")
    chat.pane.tmux("resize-window", "-x", "60", "-y", "15")
    chat.receiver.wait("Stop")
    chat.pane.wait_screen("Write a message")
    assert "\x1b[3" not in chat.pane.screen("-e").replace("\x1b[39m", "").replace("\x1b[3m", "")
    chat.pane.paste("after")
    assert chat.receiver.wait("UserPromptSubmit", 2)["prompt"] == "after"


def test_marks_and_title(chat, short_folder):
    raw = short_folder / "raw"
    raw.touch()
    chat.start(wait=False)
    chat.pane.tmux("pipe-pane", f"cat >> {raw}")
    chat.receiver.wait("SessionStart")
    seen = threading.Event()
    chat.endpoint.reply = lambda _: [seen.wait(60) and "hello"]
    chat.pane.paste("hi")
    title = ("display-message", "-p", "#{pane_title}")
    wait_for(lambda: chat.pane.tmux(*title).strip() == "● ada busy")
    seen.set()
    chat.receiver.wait("Stop")
    wait_for(lambda: chat.pane.tmux(*title).strip() == "○ ada idle")
    data = wait_for(lambda: b"133;B\x07" in (told := raw.read_bytes()).partition(b"133;D;0\x07")[2] and told)
    order = [data.index(b"133;" + mark) for mark in (b"C\x07", b"D;0\x07")]
    assert order == sorted(order)
    assert data.index(b"133;A\x07", order[1]) < data.index(b"133;B\x07", order[1])
    assert b"2004l" not in data


def test_dumb_terminal_and_pipe(chat, endpoint):
    chat.start(env={"TERM": "dumb"})
    chat.pane.paste("plain\n", enter=False)
    assert chat.receiver.wait("UserPromptSubmit")["prompt"] == "plain"
    chat.receiver.wait("Stop")
    chat.pane.wait_screen("echo: plain")
    argv = [sys.executable, "-m", "orchestrator_lab.programs.chat", "--base-url", endpoint.url, "--model", "m"]
    done = subprocess.run(argv, input="a\nb\n", capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "echo: a\necho: b\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"api": "ollama"}, "must be 'anthropic' or 'openai'"),
        ({"model": None}, "no model is named"),
        ({"base_url": "ftp://x"}, "must begin with http"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"system_file": "/nonexistent.md"}, "/nonexistent.md cannot be read"),
        ({"transcript_path": "/proc/none/t.jsonl"}, "cannot be opened"),
    ],
)
def test_wrong_settings_end_with_one_sentence(chat, settings, said):
    chat.start(wait=False, tells_end=True, **settings)
    chat.pane.wait_screen("ended with 2")
    text = chat.pane.screen("-J", "-S", "-")
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(chat, number):
    chat.endpoint.reply = lambda _: [f"{i} " for i in range(10_000)]
    chat.endpoint.pause = 0.05
    chat.start()
    chat.pane.paste("go")
    chat.receiver.wait("MessageDisplay")
    os.kill(chat.pane.pid(), number)
    wait_for(chat.pane.dead)
    assert chat.receiver.names()[-2:] == ["StopFailure", "SessionEnd"]
    assert chat.receiver.events[-1]["reason"] == "terminated"
    assert chat.records()[-1]["outcome"] == "interrupted"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_an_idle_program_costs_nothing(chat):
    chat.start()

    def ticks():
        fields = Path(f"/proc/{chat.pane.pid()}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def spent():
        before = ticks()
        time.sleep(2)
        return ticks() - before

    # On a busy machine it may be starting for a while yet.
    assert any(spent() <= 1 for _ in range(10))


def test_a_hundred_messages_in_a_row(chat):
    chat.start()
    for number in range(1, 101):
        chat.pane.paste(f"message {number}")
        chat.receiver.wait("Stop", number)
    assert [e["prompt"] for e in chat.receiver.of("UserPromptSubmit")] == [
        f"message {number}" for number in range(1, 101)
    ]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_tls_is_verified_and_can_be_interrupted(chat, short_folder):
    cert, key = short_folder / "cert.pem", short_folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    endpoint = chat.endpoint
    endpoint.socket = context.wrap_socket(endpoint.socket, server_side=True)
    base = f"https://localhost:{endpoint.server_port}"
    chat.start(base_url=base)
    chat.pane.paste("hi")
    assert "certificate verify failed" in chat.receiver.wait("StopFailure")["error"]
    chat.start(base_url=base, env={"SSL_CERT_FILE": str(cert)})
    chat.pane.paste("hi")
    assert chat.receiver.wait("Stop")["last_assistant_message"] == "echo: hi"
    endpoint.reply, endpoint.pause = (lambda _: ["word "] * 10_000), 0.05
    chat.pane.paste("more")
    chat.receiver.wait("MessageDisplay", 2)
    chat.pane.keys("C-c")
    assert chat.receiver.wait("StopFailure", 2)["error"] == "interrupted"
    endpoint.reply, endpoint.pause = (lambda _: "fine"), 0
    chat.pane.paste("again")
    assert chat.receiver.wait("Stop", 2)["last_assistant_message"] == "fine"


def test_pastes_during_a_stream_stay_exact(chat):
    chat.endpoint.reply = lambda prompt: [f"日本 {i} " for i in range(3000 if prompt == "go" else 1)]
    chat.start()
    chat.pane.paste("go")
    chat.receiver.wait("MessageDisplay")
    texts = [f"日本 {i};\\\t\n" * 2000 for i in range(4)]
    for text in texts:
        chat.pane.paste(text)
    chat.receiver.wait("Stop", 5)
    assert [e["prompt"] for e in chat.receiver.of("UserPromptSubmit")] == ["go", *texts]


def test_copy_mode_does_not_swallow_a_message(chat):
    chat.start()
    chat.pane.tmux("copy-mode")
    chat.pane.paste("while you scroll")
    assert chat.receiver.wait("UserPromptSubmit")["prompt"] == "while you scroll"


def test_a_broken_receiver_does_not_hold_up_the_chat(chat, endpoint):
    chat.start(wait=False, hook_url=endpoint.url + "/nowhere")  # it fails on a body without messages
    chat.pane.wait_screen("Write a message")
    chat.pane.paste("hi")
    chat.pane.wait_screen("echo: hi")
    chat.pane.keys("C-d")
    chat.pane.wait_screen("Ctrl-C leaves at once")
    chat.pane.keys("C-c")
    wait_for(chat.pane.dead, 25)  # the wait that it leaves takes 30 s
