"""The static leaderboard: result tables in, a folder of HTML out. Imports no torch."""
