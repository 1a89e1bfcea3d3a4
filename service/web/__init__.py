"""The public door: verifies, keeps, answers. It never goes out and fetches."""
