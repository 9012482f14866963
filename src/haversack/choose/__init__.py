"""Choosing: a knapsack over layers proposes plans, measurement on the artefact corrects it, verdicts say why."""
