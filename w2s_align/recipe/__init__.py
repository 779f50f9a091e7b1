"""What the user writes: the schema of a recipe, loading it, overrides, suggestions. Imports no torch."""

from w2s_align.recipe.document import Document, parse_document, read_document
from w2s_align.recipe.load import load
from w2s_align.recipe.overrides import apply_overrides
from w2s_align.recipe.schema import Node, Recipe, StepConfig

__all__ = ["Document", "Node", "Recipe", "StepConfig", "apply_overrides", "load", "parse_document", "read_document"]
