"""What is kept of the work folders as they were before any agent started."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["InitialStateConfig"]

Megabytes = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]


class InitialStateConfig(BaseModel):
    """How much of the work folders is kept; ``true`` and ``false`` are the short form of `record`.

    Parameters
    ----------
    record : bool
        Whether anything is kept.
    max_mb : float
        Megabytes of all work folders together; of a folder that holds more, nothing is kept.
    max_files : int
        Files of all work folders together; of a folder that holds more, nothing is kept.
    max_file_mb : float
        Megabytes of one file; a larger one is left out.
    leave_out : list of str
        Paths that are left out, from the work folder on; ``*`` stands for anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    record: bool = Field(default=True, description="whether anything is kept")
    max_mb: Megabytes = Field(
        default=50.0, description="megabytes of all work folders together; of one that holds more, nothing is kept"
    )
    max_files: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="files of all work folders together; of one that holds more, nothing is kept"
    )
    max_file_mb: Megabytes = Field(default=10.0, description="megabytes of one file; a larger one is left out")
    leave_out: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default_factory=list, description="paths in a work folder that are left out; `*` stands for anything"
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:  # noqa: ANN401
        return {"record": value} if isinstance(value, bool) else value
