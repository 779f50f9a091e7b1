"""What the failures of an OpenAI-compatible server mean for its user, and what to do about them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from w2s_align.errors import UserError
from w2s_align.generation.engines.server import Failed
from w2s_align.generation.settings import SERVER_FIELDS, Engine, EngineResources

NOT_IN_OPENAI = ("top_k", "min_p", "repetition_penalty", "stop_token_ids")
"""Fields that vLLM knows and OpenAI's own API does not."""


def api_key(variable: str | None) -> str | None:
    """Return the API key in an environment variable; None where no variable is named.

    Raises:
        UserError: The variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(
            f"The environment variable {variable}, which should hold the API key, is not set.",
            fix=f"export {variable}=..., or correct resources.api_key_env.",
        )
    return key


@dataclass(frozen=True)
class ServerErrors:
    """Explains the failures of one server.

    Attributes:
        url: Address of its API.
        path: Path of the requests.
        model: Its name for the model.
        engine: What is sent.
        resources: How it is reached.
    """

    url: str
    path: str
    model: str
    engine: Engine
    resources: EngineResources

    def explain(self, error: Failed) -> UserError:
        """Return what a failed first request means, and what to do."""
        name = self.resources.api_key_env
        what = f"The server at {self.url} gave no usable reply."
        fix = "Check resources.base_url and that the server runs (e.g. vllm serve MODEL), then try again."
        if error.status in (401, 403):
            what = f"The server at {self.url} refuses {'the API key' if name else 'requests without an API key'}."
            fix = "Set resources.api_key_env to the name of the environment variable that holds the API key."
            if name is not None:
                fix = f"Check the environment variable {name}."
        elif error.status == 404:
            what = f"The server at {self.url} has no {self.path}, or not for the model {self.model}."
            fix = "Check resources.base_url (for most servers it ends with /v1) and engine.served_model."
        elif error.refused:
            what, fix = self._refusal(error.reason)
        return UserError(what, why=error.reason, fix=fix)

    def _refusal(self, reason: str) -> tuple[str, str]:
        known = {self.engine.server_fields.get(field, field): field for field in SERVER_FIELDS}
        fields = [field for name, field in known.items() if name and re.search(rf"\b{name}\b", reason)]
        if not fields:
            fix = "If it does not accept token ids, set engine.api: chat; for single fields see engine.server_fields."
            return f"The server at {self.url} refuses the request.", fix
        field = max(fields, key=len)  # the reason may contain "n" or "stop" as a word
        change = "{max_tokens: max_completion_tokens}" if field == "max_tokens" else f"{{{field}: null}}"
        others = ", ".join(f"{other}: null" for other in NOT_IN_OPENAI)
        return (
            f"The server at {self.url} refuses the field {field} as it is sent.",
            f"Set engine.server_fields: {change}; for a server that knows only OpenAI's own fields: {{{others}}}.",
        )
