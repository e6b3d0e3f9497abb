"""A Hugging Face model's configuration: from a folder or file, from the cache, or from the hub. Never its weights."""

import json
import os
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vramfit.errors import UsageError

_TIMEOUT_S = 10
_INSTALL = "pip install 'vramfit-trainer[hf]'"


def read_config(source: str) -> Any:
    """The configuration of a model, a `transformers.PretrainedConfig`.

    Args:
        source: a folder with a `config.json`, such a file, or a model's name on the hub.

    Raises:
        UsageError: transformers is not installed, the model is not found, or the hub cannot be reached.

    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"hf:{source} needs transformers; install it: {_INSTALL}.") from error
    path = Path(source).expanduser()
    settings = _of_file(path, source) if path.exists() or _is_path(source) else _of_name(source)
    kind = settings.get("model_type")
    if "auto_map" in settings and kind not in transformers.CONFIG_MAPPING:
        raise UsageError(
            f"hf:{source} brings code of its own, which is not run; write a function that returns its Job, and name it "
            "with --model file.py:function."
        )
    if kind not in transformers.CONFIG_MAPPING:
        raise UsageError(
            f"transformers {transformers.__version__} knows no model of type '{kind}', which hf:{source} is; "
            "update transformers."
        )
    return transformers.CONFIG_MAPPING[kind].from_dict(settings)


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.endswith(".json") or os.sep in source.partition("/")[2]


def _of_file(path: Path, source: str) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"hf:{source}: {file} cannot be read ({error.strerror}); name a folder with it.") from error
    except ValueError as error:
        raise UsageError(f"hf:{source}: {file} is no JSON ({error}); name the config.json of a model.") from error
    if not isinstance(settings, dict):
        raise UsageError(f"hf:{source}: {file} holds no settings of a model; name the config.json of a model.")
    return settings


def _of_name(name: str) -> dict[str, Any]:
    """From the cache if the model was used before, else from the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        raise UsageError(f"hf:{name} is no folder, and no name that the hub could have ({error}).") from error
    if isinstance(cached, str):
        return _of_file(Path(cached), name)
    return _downloaded(name)


def _downloaded(name: str) -> dict[str, Any]:
    # Asked for directly: the library tries an unreachable hub again and again, for half a minute.
    from huggingface_hub import constants, get_token, hf_hub_url

    elsewhere = "name a folder that holds its config.json: hf:PATH"
    if constants.HF_HUB_OFFLINE:
        raise UsageError(f"hf:{name} is not in the cache, and HF_HUB_OFFLINE is set; unset it, or {elsewhere}.")
    token = get_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(hf_hub_url(name, "config.json"), headers=headers), timeout=_TIMEOUT_S) as answer:
            settings: dict[str, Any] = json.load(answer)
            return settings
    except HTTPError as error:
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise UsageError(
                f"The hub does not show the config of '{name}': there is no such model, or it asks for a login; check "
                f"the name, run `hf auth login`, or {elsewhere}."
            ) from error
        raise UsageError(
            f"The hub has no config of '{name}' ({error.code}); check the name, or {elsewhere}."
        ) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"The hub cannot be reached for hf:{name} ({reason}); connect, or {elsewhere}.") from error
