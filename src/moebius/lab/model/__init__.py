"""From the model part of a recipe to a mixture, and what one costs."""
