"""Jinja templates and expressions over the columns of a row, in a sandbox."""

from __future__ import annotations

from typing import Any

from w2s_align.errors import UserError


class Templates:
    """Fills in the templates of one task or format.

    Args:
        owner: What they belong to, for messages: ``The task gsm8k``.
        **functions: Functions that they may call.
    """

    def __init__(self, owner: str, **functions: Any) -> None:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.owner = owner
        self.environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
        )
        self.environment.globals.update(functions)

    def text(self, template: str, fields: dict[str, Any]) -> str:
        """Return a template filled in, without white space around it.

        Raises:
            UserError: It does not fit the fields.
        """
        from jinja2 import TemplateError

        try:
            return self.environment.from_string(template).render(fields).strip()
        except (TemplateError, TypeError, LookupError, ValueError) as error:
            raise self._misfit(template, error, fields) from None

    def value(self, expression: str, fields: dict[str, Any]) -> Any:
        """Return what an expression comes to.

        Raises:
            UserError: It does not fit the fields.
        """
        from jinja2 import TemplateError

        try:
            return self.environment.compile_expression(expression, undefined_to_none=False)(**fields)
        except (TemplateError, TypeError, LookupError, ValueError) as error:
            raise self._misfit(expression, error, fields) from None

    def _misfit(self, text: str, error: Exception, fields: dict[str, Any]) -> UserError:
        columns = ", ".join(name for name in fields["row"])
        return UserError(
            f"{self.owner} does not fit its data: {text.strip()[:80]!r}: {error}.",
            why=f"The columns are {columns}.",
        )
