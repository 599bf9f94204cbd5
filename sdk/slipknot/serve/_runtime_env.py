"""Where code runs, and with which environment variables."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from slipknot_core.archive import is_digest


class RuntimeEnv(BaseModel):
    """Where an application's code runs."""

    model_config = ConfigDict(extra="forbid")

    working_dir: str = ""
    """Directory that modules are imported from. `slipknot deploy` uploads it to a cluster on other machines;
    one that does not exist where it is run must be on every node.
    """
    env_vars: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the replicas."""
    excludes: list[str] = Field(default_factory=list)
    """What of `working_dir` is not uploaded, as in .gitignore."""
    archive: str = ""
    """Name of an archive that was uploaded as `working_dir`; `slipknot deploy` writes it."""

    @field_validator("archive")
    @classmethod
    def _check_archive(cls, value: str) -> str:
        if value and not is_digest(value):
            raise ValueError(f"archive must be the SHA-256 that slipknot deploy has written, not {value!r}")
        return value

    @field_validator("working_dir")
    @classmethod
    def _check_directory(cls, value: str) -> str:
        if "://" in value:
            raise ValueError(f"working_dir must be a directory that every node has, not the URI {value!r}")
        return value

    @field_validator("env_vars", mode="before")
    @classmethod
    def _numbers_as_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        # YAML reads 1 as a number, but true and no as booleans, of which nobody knows the wanted spelling.
        return {
            k: str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v
            for k, v in value.items()
        }


class ControllerOptions(BaseModel):
    """Options of the controller's process. Kept; not yet effective."""

    model_config = ConfigDict(extra="forbid")

    runtime_env: RuntimeEnv = Field(default_factory=RuntimeEnv)
    """Its environment variables."""
