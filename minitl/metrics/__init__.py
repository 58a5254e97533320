"""Scores of a tagger: entities (the ones to compare), tokens (the ones to be careful with), and the accounting."""

from minitl.metrics.accounting import Accounting, accounting
from minitl.metrics.entities import EntityScores, Score, entity_scores
from minitl.metrics.tokens import TokenScores, token_scores

__all__ = ["Accounting", "EntityScores", "Score", "TokenScores", "accounting", "entity_scores", "token_scores"]
