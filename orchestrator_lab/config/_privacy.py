"""What is masked when a run is exported, beside what the lab recognises by itself."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["PrivacyConfig"]


def _expression(text: str) -> str:
    """Return a regular expression, or raise ValueError when it is none."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from error
    return text


class PrivacyConfig(BaseModel):
    """Texts that are private, and texts that are not.

    Parameters
    ----------
    words : list of str
        Masked wherever they stand as words.
    patterns : dict of str to str
        Regular expressions by name; a group called ``hide`` says which part is masked.
    keep : list of str
        What is not masked though it would be; ``*`` stands for anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, description="texts that are masked wherever they stand as words"
    )
    patterns: dict[str, Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_expression)]] = Field(
        default_factory=dict,
        description="regular expressions by name; a group `hide` says which part of a match is masked",
    )
    keep: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, description="what is not masked though it would be; `*` stands for anything"
    )
