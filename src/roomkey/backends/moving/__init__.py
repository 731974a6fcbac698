"""Moving house between stores of any technology: copying, comparing, and examining what is there."""
