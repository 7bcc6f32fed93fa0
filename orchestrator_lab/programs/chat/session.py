"""The conversation without a screen: prompts in, answers out, recorded and reported."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .api import Answer, ApiError, Cancel, ask
from .hooks import HookSender
from .transcript import Transcript, load_messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from .settings import Settings

__all__ = ["Session", "Turn"]


@dataclass(slots=True, eq=False)
class Turn:
    """One prompt and what became of it.

    Parameters
    ----------
    prompt : str
        Exact text.
    answer : Answer
        As far as it got.
    outcome : str
        ``running``, ``completed``, ``interrupted`` or ``error``.
    error : str, optional
        The sentence when the outcome is ``error``.
    """

    prompt: str
    cancel: Cancel = field(default_factory=Cancel)
    answer: Answer = field(default_factory=Answer)
    outcome: str = "running"
    error: str | None = None
    error_kind: str | None = None
    resets_at: float | None = None
    prompt_id: str | None = None
    started: float = field(default_factory=time.monotonic)
    duration_s: float = 0.0
    characters: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    recorded: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        """The reply so far: what was shown and told of it."""
        return "".join(self.answer.text)[: self.characters]


class Session:
    """A conversation with its transcript and its hooks.

    Parameters
    ----------
    settings : Settings
        What to talk to.
    on_text : callable
        Called with (turn, text) on the turn's thread.
    on_note : callable
        Called with a sentence for the user, on any thread.
    on_done : callable
        Called with the turn on its thread, once, when it ended; the caller then calls
        :meth:`report`.

    Raises
    ------
    ConfigError
        When the role text cannot be read.
    OSError
        When the transcript cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_text: Callable[[Turn, str], None],
        on_note: Callable[[str], None],
        on_done: Callable[[Turn], None],
    ) -> None:
        self.settings = settings
        self.model = settings.model
        self.messages: list[dict[str, str]] = []
        if settings.resume and settings.transcript_path is not None:
            self.messages = load_messages(settings.transcript_path)
            self._forget()
        self.resumed = len(self.messages)
        self._system = settings.system_text()
        self._key = os.environ.get(settings.key_env) if settings.key_env else None
        self._on_text, self._on_note, self._on_done = on_text, on_note, on_done
        self._transcript = Transcript(settings.transcript_path, session_id=settings.session_id)
        self.hooks = HookSender(
            settings.hook_url,
            token=settings.hook_token,
            session_id=settings.session_id,
            transcript_path=settings.transcript_path,
            on_problem=on_note,
        )

    def opened(self) -> None:
        """Tell the lab that the program reads input."""
        source = "resume" if self.settings.resume else "startup"
        self.hooks.send("SessionStart", source=source, model=self.model, pid=os.getpid())

    def start(self, prompt: str) -> Turn:
        """Accept a prompt and answer it on a thread of its own.

        Parameters
        ----------
        prompt : str
            Exact text.

        Returns
        -------
        Turn
            Filled while the answer comes in.
        """
        turn = Turn(prompt)
        threading.Thread(target=self._run, args=(turn,), name="turn", daemon=True).start()
        return turn

    def interrupt(self, turn: Turn) -> None:
        """End a turn early; what has come stays.

        Parameters
        ----------
        turn : Turn
            A running turn; an ended one is left alone.
        """
        turn.cancel.request()

    def abandon(self, turn: Turn) -> None:
        """End an interrupted turn whose thread does not come back (it hangs in a connect, say)."""
        self._finish(turn, "interrupted")

    def queued(self, prompt: str) -> None:
        """Tell the lab that a prompt waits for the end of the running answer."""
        self.hooks.send(
            "Notification",
            notification_type="prompt_queued",
            message="queued behind the answer",
            prompt=prompt,
        )

    def clear(self) -> None:
        """Forget the conversation; the transcript keeps it and says where it was forgotten."""
        self.messages.clear()
        self._record("clear")
        self.hooks.send("Notification", notification_type="cleared", message="conversation cleared")

    def close(self, reason: str, *, wait_s: float) -> bool:
        """End the session.

        Parameters
        ----------
        reason : str
            Why.
        wait_s : float
            Longest wait in seconds for the hooks that are still on their way.

        Returns
        -------
        bool
            True when every hook was delivered.
        """
        self.hooks.send("SessionEnd", reason=reason)
        delivered = self.hooks.close(wait_s)
        self._transcript.close()
        return delivered

    def report(self, turn: Turn) -> None:
        """Tell the lab how a turn ended.

        Parameters
        ----------
        turn : Turn
            An ended turn.
        """
        common: dict[str, Any] = {
            "model": turn.answer.model or self.model,
            "usage": turn.answer.usage or None,
            "duration_ms": round(turn.duration_s * 1000),
            "prompt_id": turn.prompt_id,
        }
        if turn.outcome == "completed":
            self.hooks.send(
                "Stop",
                last_assistant_message=turn.text,
                stop_reason=turn.answer.stop_reason,
                **common,
            )
        else:
            self.hooks.send(
                "StopFailure",
                error="interrupted" if turn.outcome == "interrupted" else turn.error,
                error_type=turn.error_kind,
                resets_at=turn.resets_at,
                last_assistant_message=turn.text,
                **common,
            )

    def _run(self, turn: Turn) -> None:
        message = {"role": "user", "content": turn.prompt}
        turn.prompt_id = self._record("user", message=message)
        self.hooks.send("UserPromptSubmit", prompt=turn.prompt, prompt_id=turn.prompt_id)

        def take(text: str) -> None:
            with turn.lock:  # a turn may be ended from elsewhere meanwhile: nothing is shown after its end
                if turn.outcome != "running":
                    return
                offset, turn.characters = turn.characters, turn.characters + len(text)
                self.hooks.display(text, first=offset == 0, offset=offset, prompt_id=turn.prompt_id)
                self._on_text(turn, text)

        try:
            ask(
                self.settings,
                model=self.model,
                system=self._system,
                messages=[*self.messages, message],
                key=self._key,
                answer=turn.answer,
                cancel=turn.cancel,
                on_text=take,
                on_note=self._on_note,
            )
        except ApiError as error:
            turn.error, turn.error_kind, turn.resets_at = str(error), error.kind, error.resets_at
            self._finish(turn, "error")
        except Exception as error:  # noqa: BLE001 - a bug must end the turn, not the program
            turn.error, turn.error_kind = f"unexpected {type(error).__name__}: {error}", "internal"
            self._finish(turn, "error")
        else:
            self._finish(turn, "interrupted" if turn.cancel.requested else "completed")

    def _finish(self, turn: Turn, outcome: str) -> None:
        with turn.lock:
            if turn.outcome != "running":
                return
            turn.outcome = outcome
        turn.duration_s = time.monotonic() - turn.started
        text = turn.text
        content = text or ("[interrupted]" if outcome == "interrupted" else "")
        # A prompt that got no answer at all is not sent again: endpoints want user and assistant
        # in turns.
        kept = bool(content) or outcome == "completed"
        if kept:
            self.messages.append({"role": "user", "content": turn.prompt})
            self.messages.append({"role": "assistant", "content": content or "[no text]"})
            self._forget()
            self._record(
                "assistant",
                message={
                    "role": "assistant",
                    "model": turn.answer.model or self.model,
                    "content": [{"type": "text", "text": text}],
                    "stop_reason": turn.answer.stop_reason,
                    "usage": turn.answer.usage,
                },
                promptId=turn.prompt_id,
                outcome=outcome,
                error=turn.error,
                error_type=turn.error_kind,
                resets_at=turn.resets_at,
                durationMs=round(turn.duration_s * 1000),
            )
        else:
            self._record(
                "error",
                promptId=turn.prompt_id,
                error=turn.error,
                error_type=turn.error_kind,
                resets_at=turn.resets_at,
                durationMs=round(turn.duration_s * 1000),
            )
        turn.recorded.set()
        self._on_done(turn)

    def _forget(self) -> None:
        """Let go of the turns that are not to be remembered; the transcript keeps them all."""
        if self.settings.remember_turns is not None:
            del self.messages[: max(0, len(self.messages) - 2 * max(0, self.settings.remember_turns))]

    def _record(self, record_type: str, **fields: Any) -> str | None:  # noqa: ANN401 - JSON values
        try:
            return self._transcript.append(record_type, **fields)
        except OSError as error:
            self._on_note(f"the transcript {self.settings.transcript_path} takes no record: {error.strerror}")
            return None
