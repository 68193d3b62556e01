"""Tables as data: columns of numbers and categories, and a target, become rows of float32 and labels."""
