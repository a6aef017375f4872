"""The options of `llada-server`; each is also an environment variable LLADA_<NAME>."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from llada_core.threads import num_cores

DEMO_NAME = "llada-demo"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")


# One attribute for each option of the command.
class Settings(BaseSettings):
    """Serve one LLaDA model over HTTP; with no options, the demo model on 127.0.0.1:8000."""

    model_config = SettingsConfigDict(
        env_prefix="LLADA_",
        case_sensitive=False,
        protected_namespaces=(),
    )

    model: str | None = Field(
        None,
        description="folder with config.json, safetensors and tokenizer, or a hub id (default: the bundled demo model)",
    )
    revision: str | None = Field(None, description="revision of a hub id")
    adapter: Path | None = Field(None, description="folder of a LoRA adapter, merged into the model while it is loaded")
    served_model_name: str | None = Field(
        None, description="model name in the API (default: the folder's or repo's name)"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free port")
    root_path: str = Field("", description="path prefix that a proxy in front of the server strips")
    replica_name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.-]{0,63}$",
        description="name of this replica among several; the ids of its answers contain it",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, the checkpoint's own dtype on an accelerator"
    )
    quantization: Literal["none", "int8"] = Field(
        "none", description="int8: quantise the linear layers when loading; CPU only"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="cores that one computation uses; CPU only (default: one or all, as a short trial finds faster)",
    )
    model_threads: int = Field(
        1, ge=1, description="computations at a time, each of other requests and on one core; CPU only"
    )
    max_batch_size: int = Field(32, ge=1, description="most requests that run at once")
    max_batch_tokens: int | None = Field(
        None, ge=1, description="most tokens of one denoising step (default: 256 on a CPU, 8192 on an accelerator)"
    )
    kv_cache_memory: ByteSize | None = Field(
        None, description="memory for the caches of all requests, such as 4GiB (default: half of the free memory)"
    )
    prefix_cache_memory: ByteSize | None = Field(
        None,
        description="memory for finished blocks that requests share, such as 4GiB; only block-causal models have them; "
        "0 shares none (default: a quarter of the free memory)",
    )
    max_queue: int = Field(
        256,
        ge=0,
        description="most requests that may wait; further ones of clients with their share of it get status 429",
    )
    max_model_len: int | None = Field(
        None,
        ge=2,
        description="most positions of prompt and response together (default and maximum: the model's own limit)",
    )
    request_timeout: float = Field(600, gt=0, description="seconds until a request ends with status 504")
    step_timeout: float = Field(
        600, gt=0, description="seconds after which a denoising step counts as hanging, and the server gives up"
    )
    client_timeout: float = Field(
        60,
        gt=0,
        description="seconds that a client has for a request's head, for its body, and to read a part of its answer",
    )
    keep_alive: float = Field(75, gt=0, description="seconds that an idle connection is kept open")
    max_connections: int = Field(4096, ge=1, description="most open connections; further ones get status 503")
    shutdown_grace: float = Field(15, ge=0, description="seconds that running requests have to finish after SIGTERM")
    api_key: Annotated[list[str], NoDecode] = Field([], description="accepted API key; repeatable")
    cors_origin: Annotated[list[str], NoDecode] = Field(
        [], description="origin whose pages may send requests and read the answers, * for any; repeatable"
    )
    allowed_host: Annotated[list[str], NoDecode] = Field(
        [],
        description="further name in the Host header of requests, * for any (default: the --host, localhost names "
        "where it listens there, and on all addresses any address); repeatable",
    )
    chat_template: Path | None = Field(
        None, description="file with a Jinja template that replaces LLaDA's own chat format"
    )
    reasoning_parser: Literal["auto", "none", "think"] = Field(
        "auto",
        description="think: chat answers show thinking between <think> and </think> apart; none: as part of the text; "
        "auto: apart if the chat template or the vocabulary has these tags",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="log each record as a line of text or as a JSON object"
    )

    @field_validator("api_key", "cors_origin", "allowed_host", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        """Split the list of an environment variable at its commas. An empty entry is refused as a likely mistake."""
        words = value.split(",") if isinstance(value, str) else value
        words = [word.strip() for word in words]
        if (value and not all(words)) or value == "":
            raise ValueError("has an empty entry")
        return words

    @field_validator("cors_origin")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; it must be like https://example.org:8000, without a path")
        return origins

    @field_validator("api_key")
    @classmethod
    def _can_be_sent(cls, keys: list[str]) -> list[str]:
        if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
            raise ValueError("an API key must be of visible ASCII characters: others can't be sent in a header")
        return keys

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, path: str) -> str:
        if path and not path.startswith("/"):
            raise ValueError(f"must start with a slash, as /{path}")
        return path.rstrip("/")

    @field_validator("threads", "model_threads")
    @classmethod
    def _has_cores(cls, number: int | None) -> int | None:
        if number is not None and number > (cores := num_cores()):
            raise ValueError(
                f"this process may use {cores} {'core' if cores == 1 else 'cores'}, and each thread needs one"
            )
        return number

    @field_validator("model_threads")
    @classmethod
    def _shares_cores(cls, number: int, info: ValidationInfo) -> int:
        threads = info.data.get("threads")
        if number > 1 and threads not in (None, 1):
            raise ValueError(f"with several of these each uses one core, and threads is {threads}")
        return number

    @property
    def model_name(self) -> str:
        """The name under which the model is served."""
        if self.served_model_name:
            return self.served_model_name
        return Path(self.model).resolve().name if self.model else DEMO_NAME
