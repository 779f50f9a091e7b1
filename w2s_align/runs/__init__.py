"""What happens to a recipe: plan, keys, artifacts, execution, resume. Imports no torch.

from w2s_align import load_recipe
run = load_recipe("recipes/quickstart.yaml").run()
run.table("pairs")                                # an Arrow table
"""

from w2s_align.runs.loaded import LoadedRecipe, StepCrashed, load_recipe, recipe_from_text
from w2s_align.runs.run import Run

__all__ = ["LoadedRecipe", "Run", "StepCrashed", "load_recipe", "recipe_from_text"]
